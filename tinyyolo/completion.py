"""What a shell needs to complete `tinyyolo`'s words: commands, keys, the values that a key can have, files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyyolo.config import UserError, suggest, yaml_names

# `=` parts words in bash and not in zsh, so the word at the cursor is cut from the line by hand. `prefix` is what
# stands before the value and is to be given back where the shell has not parted it.
SCRIPT = """\
_tinyyolo() {
  local line="${COMP_LINE:0:$COMP_POINT}" prefix="" words="" files="" key value
  local cur="${line##* }" before="${line% *}"
  before="${before#tinyyolo}"; before="${before# }"
  if [[ "$cur" == *=* ]]; then
    key="${cur%%=*}"; value="${cur#*=}"
    [[ "$COMP_WORDBREAKS" == *=* ]] || prefix="$key="
    case "$key" in
@values@
    esac
    if [[ -n "$words" ]]; then COMPREPLY=($(compgen -W "$words" -- "$value")); fi
    if [[ -z "$words" || "$key" == model || "$key" == data ]]; then
      COMPREPLY=("${COMPREPLY[@]}" $(compgen -f -- "$value"))
    fi
    if [[ -n "$prefix" ]]; then COMPREPLY=("${COMPREPLY[@]/#/$prefix}"); fi
    return
  fi
  case "$before " in
@commands@
    *) words="@first@" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [[ "${COMPREPLY[0]}" == *= ]] && type compopt >/dev/null 2>&1; then compopt -o nospace; fi
  if [[ -n "$files" ]]; then COMPREPLY=("${COMPREPLY[@]}" $(compgen -f -- "$cur")); fi
}
complete -F _tinyyolo tinyyolo
"""
ZSH = "autoload -Uz compinit bashcompinit && compinit -u && bashcompinit\n"
SHELLS = {"bash": SCRIPT, "zsh": ZSH + SCRIPT}


def keys_of(words: str, function: Callable[..., Any]) -> list[str]:
    """The keys that a command takes: those of its signature, and of docs/keys.md where it takes any."""
    from tinyyolo.engine.keys import KEYS

    parameters = inspect.signature(function).parameters.values()
    takes_any = inspect.Parameter.VAR_KEYWORD in {p.kind for p in parameters}
    own = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return own + [name for name, key in KEYS.items() if takes_any and words[0] in key.modes]


def completion(shell: str) -> None:
    """Print what completes the words of tinyyolo in a shell: bash or zsh.

    In ~/.bashrc: source <(tinyyolo completion bash); in ~/.zshrc: source <(tinyyolo completion zsh)

    Args:
        shell: which one.

    Raises:
        UserError: another shell.
    """
    from tinyyolo.cli import COMMANDS, Command, leaves, resolve
    from tinyyolo.engine.keys import KEYS

    name = Path(shell).name  # $SHELL is a path
    if name not in SHELLS:
        raise UserError(f"completion: {shell}: {suggest(name, SHELLS)}")
    values = {"model": yaml_names("cfg/models"), "data": yaml_names("data")}
    values |= {key: list(row.kind.choices) for key, row in KEYS.items() if row.kind.choices and row.modes}
    rows = {words: [f"{key}=" for key in keys_of(words, resolve(entry))] for words, entry in leaves(COMMANDS)}
    groups = {word: list(entry) for word, entry in COMMANDS.items() if not isinstance(entry, Command)}
    groups |= {"help": [*COMMANDS, *KEYS], "completion": list(SHELLS)}
    cases = [(words, keys, "files=1; ") for words, keys in rows.items() if words not in groups]
    cases += [(word, some, "") for word, some in groups.items()]  # "data check " is looked for before "data "
    named = [f'      {key}) words="{" ".join(some)}" ;;' for key, some in values.items()]
    behind = [f'    "{words} "*) {also}words="{" ".join(some)}" ;;' for words, some, also in cases]
    script = SHELLS[name].replace("@values@", "\n".join(named)).replace("@commands@", "\n".join(behind))
    print(script.replace("@first@", " ".join([*COMMANDS, "help"])), end="")
