"""`tunelab completion`: a script for the shell, which asks this command for the candidates at every TAB."""

import argparse

from tunelab.language.translation import message, translate

EPILOG = message("""
Once, for every new shell:
  bash   tunelab completion bash > ~/.local/share/bash-completion/completions/tunelab
  zsh    tunelab completion zsh > ~/.zfunc/_tunelab     (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  fish   tunelab completion fish > ~/.config/fish/completions/tunelab.fish
For this shell alone:
  eval "$(tunelab completion bash)"
The words of `tunelab train` are those of train.py, for which no shell can complete behind `python`.
""")
BASH = r"""# TAB for tunelab; made by: tunelab completion bash
_tunelab() {
    local line=${COMP_LINE:0:${COMP_POINT:-0}} last=${2-${COMP_WORDS[COMP_CWORD]}} reply
    if [[ -z $line ]]; then
        line="${COMP_WORDS[*]:0:COMP_CWORD+1}"
        line=${line// = /=} line=${line/% =/=}
    fi
    COMPREPLY=()
    while IFS= read -r reply; do
        COMPREPLY+=("$reply")
        [[ $reply == *[=./] ]] && compopt -o nospace 2>/dev/null
    done < <("${COMP_WORDS[0]/#\~/$HOME}" completion "--line=$line" "--last=$last" 2>/dev/null)
}
complete -F _tunelab tunelab
"""
ZSH = r"""#compdef tunelab
# TAB for tunelab; made by: tunelab completion zsh
_tunelab() {
    local reply tab=$'\t'
    local -a open open_notes whole whole_notes
    for reply in "${(@f)$("${(Q)words[1]}" completion "--line=${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}"; do
        [[ -n $reply ]] || continue
        if [[ ${reply%%$tab*} == *[=./] ]]; then
            open+=("${reply%%$tab*}") open_notes+=("${reply/$tab/  -- }")
        else
            whole+=("${reply%%$tab*}") whole_notes+=("${reply/$tab/  -- }")
        fi
    done
    (( $#open )) && compadd -U -S '' -l -d open_notes -a open
    (( $#whole )) && compadd -U -l -d whole_notes -a whole
    (( $#open + $#whole ))
}
if [[ ${funcstack[1]} == _tunelab ]]; then _tunelab "$@"; else compdef _tunelab tunelab; fi
"""
FISH = r"""# TAB for tunelab; made by: tunelab completion fish
function __tunelab_candidates
    set -l words (commandline -opc)
    command $words[1] completion "--line="(commandline -cp | string collect) 2>/dev/null
end
complete -c tunelab -f -a '(__tunelab_candidates)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tunelab completion`."""
    parser.epilog = translate(EPILOG)
    parser.add_argument("shell", nargs="?", choices=tuple(SCRIPTS), help=translate("whose script is printed"))
    parser.add_argument("--line", help=translate("for the scripts: print candidates for a line up to the cursor"))
    parser.add_argument("--last", help=translate("for bash: the part of it that is replaced"))


def run(arguments: argparse.Namespace) -> int:
    """Print the script of a shell, or the candidates for a line."""
    from tunelab.errors import ConfigError

    if arguments.line is not None:
        from tunelab.cli.completion import complete_line, describe_line

        line: str = arguments.line
        last = "--" if arguments.last == [] else arguments.last  # argparse takes a value of two hyphens away
        for text in describe_line(line) if last is None else complete_line(line, last):
            print(text)
    elif arguments.shell is None:
        raise ConfigError(translate("name a shell: tunelab completion {names}", names="|".join(SCRIPTS)))
    else:
        print(SCRIPTS[arguments.shell], end="")
    return 0
