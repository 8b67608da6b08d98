"""What can be done with tracked runs on the command line?

The app that `rlab` is made of. Everything heavy is imported inside the commands, so that `rlab --help` answers at once.
"""

from __future__ import annotations

import typer

from researchlab.tracking._cli import _code, _exchange, _runs
from researchlab.tracking._cli._common import EXIT_CODES, Group

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tracked runs: find them, and get their code back.",
    epilog=EXIT_CODES,
)
app.command("runs", epilog=EXIT_CODES)(_runs.list_tracked)
app.command("show", epilog=EXIT_CODES)(_runs.show_run)
app.command("restore", epilog=EXIT_CODES)(_code.restore_run)
app.command("list", epilog=EXIT_CODES)(_code.list_restored)
app.command("delete", epilog=EXIT_CODES)(_code.delete_restored)
app.command("diff", epilog=EXIT_CODES)(_code.diff_runs)
app.command("export", epilog=EXIT_CODES)(_exchange.export_run)
app.command("import", epilog=EXIT_CODES)(_exchange.import_run)
