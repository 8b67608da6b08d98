"""What does git say? Everything that starts git, or knows what its files look like, is in here."""

from __future__ import annotations

from researchlab.tracking._git._blobs import (
    Blobs,
    Source,
    blob_sizes,
    fetch_blobs,
    fetching_into,
    open_blobs,
    source_of,
)
from researchlab.tracking._git._calls import (
    GitProcess,
    GitResult,
    GitStream,
    call_git,
    git_error,
    run_git,
    start_git,
    stream_git,
)
from researchlab.tracking._git._packs import BLOB, TREE, PackWriter
from researchlab.tracking._git._repository import ObjectFormat, Repository, find_repository, without_credentials
from researchlab.tracking._git._stores import (
    LIST_FILES,
    LIST_IGNORED,
    LIST_TREE,
    Entry,
    Listing,
    empty_tree,
    list_files,
    list_tree,
    make_git_dir,
    parse_files,
    parse_ignored,
    parse_tree,
    quote_config,
    quote_path,
)
from researchlab.tracking._git._trees import Trees, make_index, make_trees

__all__ = [
    "BLOB",
    "LIST_FILES",
    "LIST_IGNORED",
    "LIST_TREE",
    "TREE",
    "Blobs",
    "Entry",
    "GitProcess",
    "GitResult",
    "GitStream",
    "Listing",
    "ObjectFormat",
    "PackWriter",
    "Repository",
    "Source",
    "Trees",
    "blob_sizes",
    "call_git",
    "empty_tree",
    "fetch_blobs",
    "fetching_into",
    "find_repository",
    "git_error",
    "list_files",
    "list_tree",
    "make_git_dir",
    "make_index",
    "make_trees",
    "open_blobs",
    "parse_files",
    "parse_ignored",
    "parse_tree",
    "quote_config",
    "quote_path",
    "run_git",
    "source_of",
    "start_git",
    "stream_git",
    "without_credentials",
]
