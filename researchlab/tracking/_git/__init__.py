"""What does git say? Everything that starts git, or knows what its files look like, is in here."""

from __future__ import annotations

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
from researchlab.tracking._git._repository import ObjectFormat, Repository, find_repository, without_credentials
from researchlab.tracking._git._stores import (
    LIST_FILES,
    LIST_TREE,
    Entry,
    Listing,
    empty_tree,
    list_files,
    list_tree,
    make_git_dir,
    parse_files,
    parse_tree,
    quote_config,
    quote_path,
)

__all__ = [
    "LIST_FILES",
    "LIST_TREE",
    "Entry",
    "GitProcess",
    "GitResult",
    "GitStream",
    "Listing",
    "ObjectFormat",
    "Repository",
    "call_git",
    "empty_tree",
    "find_repository",
    "git_error",
    "list_files",
    "list_tree",
    "make_git_dir",
    "parse_files",
    "parse_tree",
    "quote_config",
    "quote_path",
    "run_git",
    "start_git",
    "stream_git",
    "without_credentials",
]
