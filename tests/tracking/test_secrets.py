"""What looks like a secret, and what does not."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import time
from pathlib import Path

import pytest

from researchlab.tracking._capture._secrets import _RULES, secret_reason, secret_reasons

RANDOM = random.Random(0)
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
HEX = "0123456789abcdef"
BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def some(letters: str, count: int) -> str:
    return "".join(RANDOM.choices(letters, k=count))


def key_block(kind: str, *, end: str = "\n", headers: str = "") -> str:
    body = end.join(some(ALNUM, 64) for _ in range(4))
    return f"-----BEGIN {kind}-----{end}{headers}{body}{end}-----END {kind}-----{end}"


# Put together here, so that no scanner finds anything in this file. Rule -> examples.
TOKENS: dict[str, list[str]] = {
    "private-key": [
        *(key_block(f"{kind}PRIVATE KEY") for kind in ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ")),
        key_block("PRIVATE KEY", end="\r\n"),
        key_block("RSA PRIVATE KEY", headers="Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0011\n\n"),
        key_block("PGP PRIVATE KEY BLOCK", headers="Version: 1\nComment: x\n\n"),
        json.dumps({"type": "service_account", "private_key": key_block("PRIVATE KEY")}),
        "KEY = (\n" + "".join(f'    "{line}\\n"\n' for line in key_block("RSA PRIVATE KEY").splitlines()) + ")\n",
        "  key: |\n" + "".join(f"    {line}\n" for line in key_block("PRIVATE KEY").splitlines()),
        "PuTTY-User-Key-File-" + "3: ssh-ed25519\n",
    ],
    "age-secret-key": ["AGE-SECRET-" + "KEY-1" + some("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)],
    "aws-access-token": [kind + some(BASE32, 16) for kind in ("AKIA", "ASIA", "ABIA", "ACCA", "A3TX")],
    "aws-secret-key": [
        f'aws_secret_access_key = "{some(ALNUM, 40)}"',
        f"export AWS_SECRET_ACCESS_KEY={some(ALNUM, 40)}\n",
        f'{{"aws_secret_access_key": "{some(ALNUM, 40)}"}}',
    ],
    "azure-storage-key": ["DefaultEndpointsProtocol=https;Account" + "Key=" + some(ALNUM, 86) + "==;"],
    "gcp-api-key": ["AI" + "za" + some(ALNUM, 35)],
    "gcp-oauth-secret": ["GOC" + "SPX-" + some(ALNUM, 28)],
    "github-pat": [f"gh{kind}_{some(ALNUM, 36)}" for kind in "pousr"],
    "github-fine-grained-pat": [f"github_{'pat'}_{some(ALNUM, 22)}_{some(ALNUM, 59)}"],
    "gitlab-pat": [f"gl{kind}-{some(ALNUM, 20)}" for kind in ("pat", "dt", "ft", "soat", "rt", "cbt", "ptt")],
    "slack-token": ["xo" + f"x{kind}-123456789012-123456789012-{some(ALNUM, 24)}" for kind in "bp"],
    "slack-app-token": ["xa" + f"pp-1-A{some('ABC123', 10)}-1234567890123-{some(HEX, 64)}"],
    "slack-webhook-url": ["https://hooks.slack" + f".com/services/T{'0' * 8}/B{'0' * 8}/{some(ALNUM, 24)}"],
    "discord-webhook": ["https://discord" + f".com/api/webhooks/123456789012345678/{some(ALNUM, 68)}"],
    "telegram-bot-api-token": [f"123456789:{'AA'}{some(ALNUM, 33)}"],
    "stripe-access-token": [f"{kind}k_{'live'}_{some(ALNUM, 24)}" for kind in "rs"],
    "pypi-upload-token": [
        f"pypi-{'AgEIcHlwaS5v'}cmc{some(ALNUM, 120)}",
        f"pypi-{'AgENdGVzdC5weXBp'}Lm9yZw{some(ALNUM, 90)}",
    ],
    "npm-access-token": [f"{'npm'}_{some(ALNUM, 36)}"],
    "npmrc-auth-token": [f"registry=x\n//registry.npmjs.org/:_auth{'Token'}={some(HEX, 36)}\n"],
    "docker-pat": [f"dckr_{'pat'}_{some(ALNUM, 27)}"],
    "docker-auths": [json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": some(ALNUM, 20)}}}, indent=4)],
    "kubernetes-config": [
        f"users:\n- user:\n    client-key-data: LS0t{some(ALNUM, 80)}\n",
        f"apiVersion: v1\nkind: Config\ncurrent-context: x\nusers:\n- user:\n    token: {some(ALNUM, 40)}\n",
    ],
    "openai-api-key": [f"sk-{start}{some(ALNUM, 20)}T3Blbk{'FJ'}{some(ALNUM, 20)}" for start in ("", "proj-ab_c-")],
    "anthropic-api-key": [f"sk-{'ant'}-api03-{some(ALNUM, 93)}AA"],
    "huggingface-access-token": [f"{'hf'}_{some(ALNUM[:52], 34)}"],
    "replicate-api-token": [f"{'r8'}_{some(ALNUM, 37)}"],
    "groq-api-key": [f"{'gsk'}_{some(ALNUM, 52)}"],
    "langsmith-api-key": [f"lsv2_{'pt'}_{some(HEX, 32)}_{some(HEX, 10)}"],
    "wandb-api-key": [
        f'os.environ["WANDB_API_{"KEY"}"] = "{some(HEX, 40)}"',
        f"wandb_api_{'key'}: {some(HEX, 40)}",
        f"setdefault('WANDB_API_{'KEY'}', '{some(HEX, 40)}')",
    ],
    "comet-api-key": [f'COMET_API_{"KEY"}="{some(LOWER, 25)}"'],
    "neptune-api-token": [f'NEPTUNE_API_{"TOKEN"}="eyJ{some(ALNUM, 120)}=="'],
    "databricks-api-token": [f"{'dapi'}{some(HEX, 32)}", f"{'dapi'}{some(HEX, 32)}-2"],
    "digitalocean-pat": [f"do{kind}_{'v1'}_{some(HEX, 64)}" for kind in "opr"],
    "vault-service-token": [f"{'hvs'}.{some(ALNUM, 95)}"],
    "sendgrid-api-token": [f"{'SG'}.{some(ALNUM, 22)}.{some(ALNUM, 43)}"],
}


def test_there_is_an_example_of_every_rule() -> None:
    assert TOKENS.keys() == {rule.id for rule in _RULES}


@pytest.mark.parametrize("rule", sorted(TOKENS))
def test_a_token_is_found_wherever_it_stands(rule: str) -> None:
    (what,) = {found.what for found in _RULES if found.id == rule and found.words[0] != b"PuTTY-User-Key-File-"}
    whole_file = rule in {"docker-auths", "kubernetes-config", "npmrc-auth-token"}
    for token in TOKENS[rule]:
        alone = token.encode()
        around = [alone, alone + b"\n"]
        if not (whole_file or token.startswith("PuTTY")):
            around += [b"# \xff\n" + alone, b"x = 1\r\n" * 1000 + alone + b"\r\ny = 2\r\n"]
        if "\n" not in token and not whole_file:
            around += [b'token = "' + alone + b'"', b"'" + alone + b"'", b"key:" + alone + b",", b"(" + alone + b")"]
            around += [b"KEY=" + alone, b"https://" + alone + b"@host/x", b"https://user:" + alone + b"@host/x"]
            if '"' not in token:
                around += [json.dumps({"cells": [{"source": [f"TOKEN = '{token}'\n"]}]}).encode()]
        for data in around:
            reason = secret_reason(b"notes.txt", data)
            assert reason is not None, (token, data[:80])
            if not token.startswith("PuTTY"):
                assert reason == f"looks like a secret ({what}); allow it with allow-secrets in [tool.researchlab]"


NAMES = [
    ".env",
    ".envrc",
    ".env.local",
    ".env.production",
    ".env-prod",
    "deep/er/.env",
    ".ENV",
    "id_rsa",
    "keys/id_ed25519",
    "id_ecdsa_sk",
    "cert.p12",
    "x.PFX",
    "passwords.kdbx",
    "key.ppk",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".my.cnf",
    ".git-credentials",
    ".htpasswd",
    ".pypirc",
    ".aws/credentials",
    "home/.aws/credentials",
    ".azure/accessTokens.json",
    ".azure/msal_token_cache.json",
    "application_default_credentials.json",
    ".config/gcloud/credentials.db",
    "client_secret_123.apps.googleusercontent.com.json",
    "kaggle.json",
    ".kaggle/kaggle.json",
    ".cache/huggingface/token",
    ".huggingface/token",
    ".kube/config",
    ".databrickscfg",
    ".cargo/credentials.toml",
    ".gem/credentials",
    ".s3cfg",
    ".boto",
    "rclone.conf",
    ".config/rclone/rclone.conf",
    "credentials.json",
    "conf/local/credentials.yml",
    "secrets.yaml",
    ".streamlit/secrets.toml",
    "credentials.tfrc.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_tools_keep_credentials_in_is_known_by_its_name(name: str) -> None:
    for path in (name, f"a b/{name}", f"\N{SNOWMAN}/{name}"):
        reason = secret_reason(path.encode(), b"")
        assert reason is not None
        assert reason == secret_reason(path.encode(), None)


@pytest.mark.parametrize(
    "name",
    [
        ".env.example",
        ".env.sample",
        ".env.template",
        ".env.dist",
        ".env-example",
        ".env.local.example",
        ".env.vault",
        "secrets.yaml.example",
        "credentials.example.json",
        "env",
        "environment.yml",
        "x.env.py",
        "my.environment",
        ".env-3.11/bin/python",
        ".env.d/readme",
        "id_rsa.pub",
        "id_rsa.md",
        "netrc",
        "credentials",
        "credentials.py",
        "secrets.py",
        "test_secrets.py",
        "credentials/readme.md",
        "config.json",
        "docker/config.json",
        "kube/config",
        "token",
        "tokens.json",
        "tokenizer.json",
        "huggingface/tokenizer.json",
        "keys.json",
        "key.py",
        "cert.pem",
        "kaggle.json.py",
        "kaggle/train.csv",
        ".npmrc",
        ".secrets.baseline",
    ],
)
def test_a_name_that_is_only_near_is_no_secret(name: str) -> None:
    assert secret_reason(name.encode(), b"") is None


def test_an_allowed_path_goes_in_whatever_it_looks_like() -> None:
    token = TOKENS["github-pat"][0].encode()

    def goes_in(path: str, *allow: str) -> bool:
        return secret_reason(path.encode("utf-8", "surrogateescape"), token, allow=allow) is None

    assert goes_in("tests/data/keys.py", "tests/data/keys.py")
    assert goes_in("tests/data/keys.py", "nothing", "tests/*")
    assert goes_in("tests/data/keys.py", "*.py")
    assert goes_in(".env", ".env")
    assert goes_in("a/b/.env", "*/.env")
    assert goes_in("keys\udcff.py", "keys?.py")
    assert not goes_in("tests/data/keys.py")
    assert not goes_in("tests/data/keys.py", "keys.py")
    assert not goes_in("tests/data/keys.py", "test")
    assert not goes_in("tests/data/keys.py", "Tests/*")
    assert not goes_in("a/.env", ".env")


def test_many_files_are_judged_as_each_alone() -> None:
    files: list[tuple[bytes, bytes | None]] = [(name.encode(), b"x") for name in NAMES]
    files += [(b"%d.txt" % number, token[0].encode()) for number, token in enumerate(TOKENS.values())]
    files += [(b"harmless %d" % number, b"x = 1") for number in range(20)]
    # Two halves that are only a token together, and a rule that looks at the whole file.
    token = TOKENS["github-pat"][0].encode()
    files += [(b"half", token[:9]), (b"other half", token[9:]), (b"binary", b"\0" + token), (b"unread", None)]
    files += [(b"late", b"x" + TOKENS["docker-auths"][0].encode())]
    alone = {path: reason for path, data in files if (reason := secret_reason(path, data)) is not None}
    assert secret_reasons(files) == alone
    assert len(alone) == len(NAMES) + len(TOKENS)
    assert secret_reasons(files, allow=["*"]) == {}
    assert secret_reasons([]) == {}


def test_only_text_is_looked_at() -> None:
    token = TOKENS["github-pat"][0].encode()
    assert secret_reason(b"weights.bin", b"\0\1\2" + token) is None
    assert secret_reason(b"latin.txt", b"caf\xe9 " + token) is not None


def notebook(seed: int) -> str:
    image = base64.b64encode(random.Random(seed).randbytes(20_000)).decode()
    outputs = [{"data": {"image/png": image, "text/plain": ["<Figure size 640x480 with 1 Axes>"]}}]
    source = ["import numpy as np\n", f"key = jax.random.PRNGKey({seed})\n", "api_key = os.environ['OPENAI_API_KEY']\n"]
    return json.dumps({"cells": [{"id": some(HEX, 8), "source": source, "outputs": outputs}], "nbformat": 4}, indent=1)


def table(seed: int) -> str:
    numbers = random.Random(seed)
    rows = (",".join(repr(numbers.gauss(0, 1)) for _ in range(6)) for _ in range(100))
    return "\n".join(["id,hash,x,y", *rows, *(f"{n},{hashlib.sha256(bytes([n])).hexdigest()}" for n in range(50))])


def config(seed: int) -> str:
    return (
        f"seed: {seed}\nlr: 1.0e-3\nwandb:\n  project: x\n  api_key: ${{oc.env:WANDB_API_KEY}}\n"
        f"commit: {some(HEX, 40)}\nuuid: 123e4567-e89b-12d3-a456-426614174000\naws_secret_access_key: ${{AWS_SECRET}}\n"
        "tracking_uri: postgresql://user:password@localhost/mlflow\nmodel: hf-internal-testing/tiny-random-gpt2\n"
    )


def code(seed: int) -> str:
    return (
        f'DATA = base64.b64decode("{base64.b64encode(random.Random(seed).randbytes(3000)).decode()}")\n'
        'if b"-----BEGIN RSA PRIVATE '
        'KEY-----" in data:\n    raise ValueError("-----BEGIN PRIVATE '
        'KEY-----")\n'
        'PATTERN = re.compile(r"-----BEGIN (?:[A-Z ]+)?PRIVATE ' + 'KEY-----[A-Za-z0-9+/=\\s]+-----END")\n'
        'token = os.environ["GITHUB_TOKEN"]  # ghp_..., or github_pat_...\n'
        'headers = {"Authorization": f"Bearer {token}", "x-api-key": "sk-ant-..."}\n'
        f'KEY = "{"AKIA" + "IOSFODNN7" + "EXAMPLE"}"  # {"wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"}\n'
        f"aws_secret_access_key={'wJalrXUtnFEMI/K7MDENG/' + 'bPxRfiCYEXAMPLEKEY'}\n"
        "def hf_hub_download_with_a_name_that_is_long_enough_for_any_rule(): ...\n"
        "hf_this_is_a_name_of_a_function_and_not_a_token()\n"
        "npm_config_registry = 'https://registry.npmjs.org/'\nr8_"
        + "quantised_weights_in_eight_bits_of_the_model = 3\n"
    )


def lock(seed: int) -> str:
    packages = "\n".join(f"package=={n}.0 --hash=sha256:{some(HEX, 64)}" for n in range(40))
    integrity = base64.b64encode(hashlib.sha512(bytes([seed])).digest()).decode()
    return f'{packages}\n"integrity": "sha512-{integrity}",\ncontent-hash = "{some(HEX, 64)}"\n'


@pytest.mark.parametrize("make", [notebook, table, config, code, lock])
def test_what_researchers_write_is_no_secret(make: object) -> None:
    assert callable(make)
    for seed in range(40):
        data = make(seed).encode()
        assert secret_reason(f"file{seed}.txt".encode(), data) is None


def test_this_repository_holds_no_secret() -> None:
    top = Path(__file__).parents[2]
    folders = ("researchlab", "pytest_researchlab", "tests", "examples", "docs", "benchmarks")
    files = [path for folder in folders for path in (top / folder).rglob("*") if path.is_file()]
    assert len(files) > 100
    found = {
        path: reason
        for path in files
        if "__pycache__" not in path.parts
        and (reason := secret_reason(path.relative_to(top).as_posix().encode(), path.read_bytes())) is not None
    }
    assert found == {}


@pytest.mark.parametrize(
    "data",
    [
        "-----BEGIN RSA PRIVATE " + "KEY-----\n\n\n\n\n",
        "-----BEGIN PRIVATE " + "KEY-----\nA: b\nC: d\n",
        '"auths": {',
        "current-context:\nkind: Config\n",
        "sk-T3BlbkFJ",
        "npm_ hf_ _v1_ :AA dapi xox- glpat- AKIA ",
        "A" * 64,
    ],
)
def test_hostile_content_takes_no_time(data: str) -> None:
    content = (data * (500_000 // len(data))).encode()
    start = time.process_time()
    secret_reason(b"x", content)
    assert time.process_time() - start < 5  # a hundred times what it takes; backtracking would take hours
