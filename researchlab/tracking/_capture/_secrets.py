"""Does this file look like a secret, which must not leave with a patch?

Names that tools keep credentials in, blocks of private keys, and tokens whose issuers gave them a form of their own,
under the ids that the rules of gitleaks have for them. There is no rule for what is merely random or called a password:
a file that is left out without need costs a researcher the run.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What tools keep passwords, tokens and keys in: a name, and the folder that it is in where the name says too little.
_NAMES: tuple[tuple[str, bytes], ...] = (
    ("environment file", rb"\.env(rc|[-._][^/]+)?"),
    ("SSH key", rb"id_(rsa|dsa|ecdsa|ed25519)(_sk)?"),
    ("key store", rb"[^/]+\.(p12|pfx|jks|keystore|kdbx?|ppk)|secring\.gpg"),
    ("password file", rb"[._]netrc|\.?pgpass(\.conf)?|\.my(login)?\.cnf|\.git-credentials|\.htpasswd|\.passwd-s3fs"),
    ("PyPI credentials", rb"\.pypirc"),
    ("AWS credentials", rb"\.aws/credentials"),
    ("Azure credentials", rb"\.azure/(accessTokens|msal_token_cache|service_principal_entries)\.(json|bin)"),
    (
        "Google credentials",
        rb"application_default_credentials\.json|client_secret[^/]*\.json|gcloud/(access_tokens|credentials)\.db",
    ),
    ("Kaggle credentials", rb"kaggle\.json"),
    ("Hugging Face token", rb"\.?huggingface/(token|stored_tokens)"),
    ("Kubernetes credentials", rb"\.kube/config"),
    ("Databricks credentials", rb"\.databrickscfg"),
    ("credentials of a package manager", rb"\.(cargo|gem)/credentials(\.toml)?"),
    ("credentials of a tool", rb"\.s3cfg|\.boto|\.?rclone\.conf|\.vault-token|\.terraformrc|[^/]+\.tfrc(\.json)?"),
    ("credentials file", rb"credentials\.(json|ya?ml|toml|ini)|\.?secrets\.(json|ya?ml|toml|ini|env)"),
)
_BY_NAME = re.compile(rb"(?is)" + b"|".join(b"(?P<_%d>%s)" % (number, form) for number, (_, form) in enumerate(_NAMES)))
# Meant to be shared, or encrypted.
_TEMPLATE = re.compile(rb"(?i)[-._](example|sample|template|tmpl|dist|defaults?|schema|vault|encrypted)(\.[^/]*)?\Z")


class _Rule(NamedTuple):
    """One kind of token: gitleaks' id, what it is, words one of which is there (a quick look), and its form."""

    id: str
    what: str
    words: tuple[bytes, ...]
    form: re.Pattern[bytes]


def _token(id: str, what: str, form: bytes, *words: bytes) -> _Rule:  # noqa: A002 - the word of the rules
    """Return a rule for a token that stands alone: a longer run of its characters, as in base64, is something else."""
    return _Rule(id, what, words, re.compile(rb"(?<![A-Za-z0-9_])(?:" + form + rb")(?![A-Za-z0-9+/_-])"))


def _assigned(id: str, what: str, name: bytes, value: bytes) -> _Rule:  # noqa: A002
    """Return a rule for a token without a form of its own that stands behind its name."""
    # Quotes may be escaped, as in a notebook; `os.environ["NAME"] = "value"`, `setdefault("NAME", "value")`.
    form = name + rb"""[\\"'\]]{0,4}\s{0,5}[:=,]\s{0,5}[\\"']{0,2}""" + value + rb"(?![A-Za-z0-9+/=_-])"
    return _Rule(id, what, (name, name.upper()), re.compile(form, re.IGNORECASE))


_RULES = (
    _Rule(
        "private-key",
        "a private key",
        (b"PRIVATE KEY",),
        # With the key behind it: code that only names the header has none. Headers of the block and the quotes and
        # escaped line feeds of JSON or of source code may come between.
        re.compile(
            rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            rb"""(?:(?:\\[nr]|[\s"'+,\\]){1,40}(?:[A-Z][A-Za-z-]{1,30}: [^\r\n\\]{0,200})?){1,8}[A-Za-z0-9+/=]{16}"""
        ),
    ),
    _Rule("private-key", "a PuTTY private key", (b"PuTTY-User-Key-File-",), re.compile(rb"^PuTTY-User-Key-File-\d: ")),
    _token(
        "age-secret-key", "an age key", rb"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}", b"AGE-SECRET-KEY-1"
    ),
    # The documentation of AWS uses a key that ends with EXAMPLE.
    _token(
        "aws-access-token",
        "an AWS access key",
        rb"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)(?![A-Z2-7]{9}EXAMPLE)[A-Z2-7]{16}",
        b"AKIA",
        b"ASIA",
        b"ABIA",
        b"ACCA",
        b"A3T",
    ),
    _assigned(
        "aws-secret-key", "an AWS secret key", b"aws_secret_access_key", rb"(?!.{30,33}EXAMPLE)[A-Za-z0-9+/]{40}"
    ),
    _Rule(
        "azure-storage-key",
        "an Azure storage key",
        (b"AccountKey=",),
        re.compile(rb"AccountKey=[A-Za-z0-9+/]{86}==(?![A-Za-z0-9+/=])"),
    ),
    _token("gcp-api-key", "a Google API key", rb"AIza[\w-]{35}", b"AIza"),
    _token("gcp-oauth-secret", "a Google OAuth secret", rb"GOCSPX-[\w-]{28}", b"GOCSPX-"),
    _token(
        "github-pat", "a GitHub token", rb"gh[pousr]_[A-Za-z0-9]{36,255}", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"
    ),
    _token("github-fine-grained-pat", "a GitHub token", rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}", b"github_pat_"),
    _token(
        "gitlab-pat",
        "a GitLab token",
        rb"gl(?:pat|dt|ft|soat|rt|cbt|ptt|imt|agent)-[\w-]{20,60}(?:\.[\w-]{2,}){0,2}",
        *(b"gl%s-" % kind for kind in (b"pat", b"dt", b"ft", b"soat", b"rt", b"cbt", b"ptt", b"imt", b"agent")),
    ),
    _token("slack-token", "a Slack token", rb"xox[abeoprs]-(?:\d+-){1,4}[A-Za-z0-9]{10,}", b"xox"),
    _token("slack-app-token", "a Slack token", rb"xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{20,}", b"xapp-"),
    _Rule(
        "slack-webhook-url",
        "a Slack webhook",
        (b"hooks.slack.com/",),
        re.compile(rb"hooks\.slack\.com/(?:services|workflows|triggers)/T[A-Z0-9]{7,}/[A-Z0-9]{8,}/[A-Za-z0-9]{20,}"),
    ),
    _Rule(
        "discord-webhook",
        "a Discord webhook",
        (b"/api/webhooks/",),
        re.compile(rb"discord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,}"),
    ),
    _token("telegram-bot-api-token", "a Telegram token", rb"\d{8,10}:AA[\w-]{33}", b":AA"),
    _token("stripe-access-token", "a Stripe key", rb"[rs]k_live_[A-Za-z0-9]{24,}", b"k_live_"),
    _token(
        "pypi-upload-token", "a PyPI token", rb"pypi-Ag(?:EIcHlwaS5vcmc|ENdGVzdC5weXBpLm9yZw)[\w-]{50,}", b"pypi-Ag"
    ),
    _token("npm-access-token", "an npm token", rb"npm_[A-Za-z0-9]{36}", b"npm_"),
    _Rule(
        "npmrc-auth-token",
        "an npm token",
        (b":_auth", b":_password"),
        re.compile(rb"^//[^\s=]+:_(?:auth(?:Token)?|password)\s*=\s*(?!\$\{)[^\s$]{8}", re.MULTILINE),
    ),
    _token("docker-pat", "a Docker Hub token", rb"dckr_pat_[\w-]{27}", b"dckr_pat_"),
    _Rule(
        "docker-auths",
        "a Docker login",
        (b'"auths"',),
        re.compile(
            rb'\A\s*\{[^\0]{0,4000}?"auths"\s*:[^\0]{0,4000}?"(?:auth|identitytoken)"\s*:\s*"[A-Za-z0-9+/=._-]{8}'
        ),
    ),
    _Rule(
        "kubernetes-config",
        "Kubernetes credentials",
        (b"client-key-data", b"current-context"),
        re.compile(
            rb"(?m)client-key-data\W{1,5}LS0t[A-Za-z0-9+/]{40}"
            rb"|\A(?=[^\0]*?^kind: Config\b)(?=[^\0]*?^current-context:)[^\0]*?^\s{1,20}token: \S{20}"
        ),
    ),
    _token("openai-api-key", "an OpenAI key", rb"sk-[\w-]{0,100}T3BlbkFJ[\w-]{20,100}", b"T3BlbkFJ"),
    _token("anthropic-api-key", "an Anthropic key", rb"sk-ant-[a-z]+\d\d-[\w-]{80,110}", b"sk-ant-"),
    _token("huggingface-access-token", "a Hugging Face token", rb"(?:hf|api_org)_[A-Za-z]{34}", b"hf_", b"api_org_"),
    _token("replicate-api-token", "a Replicate token", rb"r8_[A-Za-z0-9]{37}", b"r8_"),
    _token("groq-api-key", "a Groq key", rb"gsk_[A-Za-z0-9]{52}", b"gsk_"),
    _token("langsmith-api-key", "a LangSmith key", rb"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}", b"lsv2_"),
    _assigned("wandb-api-key", "a Weights & Biases key", b"wandb_api_key", rb"(?:[0-9a-f]{40}|wandb_v1_[\w-]{20,})"),
    _assigned("comet-api-key", "a Comet key", b"comet_api_key", rb"[A-Za-z0-9]{25}"),
    _assigned("neptune-api-token", "a Neptune token", b"neptune_api_token", rb"eyJ[A-Za-z0-9+/=_-]{60,}"),
    _token("databricks-api-token", "a Databricks token", rb"dapi[0-9a-f]{32}(?:-\d)?", b"dapi"),
    _token("digitalocean-pat", "a DigitalOcean token", rb"do[opr]_v1_[0-9a-f]{64}", b"_v1_"),
    _token("vault-service-token", "a Vault token", rb"hv[sb]\.[\w-]{90,}", b"hvs.", b"hvb."),
    _token("sendgrid-api-token", "a SendGrid key", rb"SG\.[\w-]{22}\.[\w-]{43}", b"SG."),
)
_BY_WORD = tuple((word, rule) for rule in _RULES for word in rule.words)


def secret_reason(path: bytes, data: bytes | None, *, allow: Sequence[str] = ()) -> str | None:
    """Return why a file should stay out of what is stored, or None where it may go in.

    Templates such as ``.env.example`` are no secrets by their name. Content is only looked at where it is text.

    Args:
        path: Its path, relative to the root of the work tree.
        data: Its bytes, or the first of them; None where only the name is to be judged.
        allow: Globs of paths that may go in whatever they look like. A glob is matched against the whole path, as in
            Python's ``fnmatch``: ``*`` stands for any characters, ``/`` included, so that ``tests/*`` is everything
            below ``tests`` and ``*.pem`` each such file, wherever it is.

    Returns:
        A half sentence for the reader.
    """
    return secret_reasons([(path, data)], allow=allow).get(path)


def secret_reasons(files: Sequence[tuple[bytes, bytes | None]], *, allow: Sequence[str] = ()) -> dict[bytes, str]:
    """Return why files should stay out of what is stored; as ``secret_reason``, and faster for many small ones.

    Args:
        files: Path and data of each. The content of all is joined: a MiB or so at a time is best.
        allow: As for ``secret_reason``.

    Returns:
        Path -> half sentence, for those that should stay out.
    """
    found = {path: what for path, _ in files if (what := _by_name(path)) is not None}
    joined = b"\n".join([data for _, data in files if data is not None])
    likely = [(word, rule) for word, rule in _BY_WORD if word in joined]
    for path, data in files if likely else ():
        if path not in found and data is not None and (what := _by_content(data, likely)) is not None:
            found[path] = what
    return {
        path: f"looks like a secret ({what}); allow it with allow-secrets in [tool.researchlab]"
        for path, what in found.items()
        if not _is_allowed(path, allow)
    }


def _by_name(path: bytes) -> str | None:
    folders, _, name = path.rpartition(b"/")
    named = _BY_NAME.fullmatch(name)
    if named is None and folders:
        named = _BY_NAME.fullmatch(folders.rpartition(b"/")[2] + b"/" + name)
    if named is None or named.lastgroup is None or _TEMPLATE.search(name) is not None:
        return None
    return _NAMES[int(named.lastgroup[1:])][0]


def _by_content(data: bytes, likely: Iterable[tuple[bytes, _Rule]]) -> str | None:
    if b"\0" in data[:8000]:
        return None
    for word, rule in likely:
        if word in data and rule.form.search(data) is not None:
            return rule.what
    return None


def _is_allowed(path: bytes, allow: Sequence[str]) -> bool:
    text = path.decode("utf-8", "surrogateescape")
    return any(fnmatch.fnmatchcase(text, pattern) for pattern in allow)
