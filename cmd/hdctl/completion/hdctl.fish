# fish completion for hdctl. Made by: hdctl completion fish

# Finds the candidates. Its status is not 0 where fish is to complete files.
function __hdctl_find
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    set -g __hdctl_found
    set -l found (command hdctl __complete --shell=fish -- $before[2..-1] "$word" 2>/dev/null)
    switch "$found[1]"
        case :files :directories
            return 1
        case :command
            # What follows "--" is a command line of its own.
            set -l first (contains -i -- -- $before; or echo (count $before))
            set -l rest (string escape -- $before[(math $first + 1)..-1]) "$word"
            set -g __hdctl_found (complete --do-complete (string join ' ' -- $rest))
        case '*'
            set -g __hdctl_found $found
    end
    return 0
end

complete -c hdctl -e
complete -k -c hdctl -n __hdctl_find -f -a '$__hdctl_found'
