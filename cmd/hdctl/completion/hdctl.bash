# bash completion for hdctl. Made by: hdctl completion bash

_hdctl() {
    local program=$1 line path i
    type -P -- "$program" >/dev/null || program=hdctl
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :files | :directories)
            if [[ $2 == -*=* ]]; then
                # "=" is not in COMP_WORDBREAKS: the path is a part of the word.
                compopt -o nospace 2>/dev/null
                while IFS= read -r path; do
                    printf -v path %q "$path"
                    COMPREPLY+=("${2%%=*}=$path")
                done < <(compgen -"${line:1:1}" -- "${2#*=}")
            elif [[ $line == :files ]]; then
                compopt -o default 2>/dev/null
            else
                compopt -o dirnames 2>/dev/null
            fi
            ;;
        :command)
            # What follows "--" is a command line of its own.
            for ((i = 1; i < COMP_CWORD; i++)); do
                [[ ${COMP_WORDS[i]} == -- ]] && break
            done
            if declare -F _command_offset >/dev/null; then
                _command_offset $((i + 1))
            elif ((i + 1 >= COMP_CWORD)); then
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -c -- "$2")
            else
                compopt -o default 2>/dev/null
            fi
            ;;
        *) COMPREPLY+=("$line") ;;
        esac
    done < <("$program" __complete --shell=bash --replace="$2" -- "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    # "generation=" is not the end of a word.
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _hdctl hdctl
