#compdef hdctl
# zsh completion for hdctl. Made by: hdctl completion zsh

_hdctl() {
    local program=${(Q)words[1]} line text help
    local -a before lines whole begun
    (( $+commands[$program] )) || [[ -x $program ]] || program=hdctl
    before=("${(@Q)words[2,CURRENT-1]}")
    lines=("${(@f)$("$program" __complete --shell=zsh -- "${before[@]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case $lines[1] in
    :files)
        [[ $PREFIX == -*=* ]] && compset -P '*='
        _files
        return
        ;;
    :directories)
        [[ $PREFIX == -*=* ]] && compset -P '*='
        _files -/
        return
        ;;
    :command)
        # What follows "--" is a command line of its own.
        local -i first=$(( ${words[(i)--]} + 1 ))
        (( first > CURRENT )) && first=CURRENT
        shift $(( first - 1 )) words
        (( CURRENT -= first - 1 ))
        _normal -p hdctl
        return
        ;;
    esac
    for line in $lines; do
        text=${line%%$'\t'*} help=${line#*$'\t'}
        # _describe takes a colon for the beginning of the description.
        line=${text//:/\\:}
        [[ -n $help ]] && line+=":$help"
        if [[ $text == *= ]]; then
            begun+=("$line")
        else
            whole+=("$line")
        fi
    done
    _describe -t values hdctl whole -- begun -S ''
}

if [[ $funcstack[1] == _hdctl ]]; then
    _hdctl "$@"
else
    compdef _hdctl hdctl
fi
