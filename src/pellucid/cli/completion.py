"""pellucid completion: what a shell reads to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pellucid.cli._command import Command, json_option, print_json

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def command(ctx: click.Context, shell: str, as_json: bool) -> None:
    """Print the lines that teach SHELL to complete pellucid's commands and options.

    \b
    eval "$(pellucid completion bash)"    in ~/.bashrc
    eval "$(pellucid completion zsh)"     in ~/.zshrc
    pellucid completion fish | source     in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "pellucid", "_PELLUCID_COMPLETE").source()
    print_json({"shell": shell, "script": script}) if as_json else click.echo(script)
