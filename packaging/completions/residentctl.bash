# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion of residentctl for bash. A row of verbs for each kind of argument; models are asked of the service.

_residentctl()
{
    local verbs='list run chat embed tokenize detokenize ps cancel usage status top metrics load unload pin unpin wait reload plan policy call'
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb='' words='' position=0 i

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --socket) [ -n "$verb" ] || ((i++)) ;;
        -*) ;;
        *) if [ -n "$verb" ]; then ((++position)); else verb=${COMP_WORDS[i]}; fi ;;
        esac
    done
    case $prev in
    --socket | --json-schema | --grammar)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    esac
    if [ -z "$verb" ]; then
        case $cur in
        -*) words='--socket --json --version --help' ;;
        *) words=$verbs ;;
        esac
    elif [[ $cur == -* ]]; then
        case $verb in
        run | chat)
            words='-n --temperature --top-k --top-p --min-p --repeat-penalty --seed --stop --json-schema --grammar --system --adapter --stats'
            [ "$verb" = run ] && words="$words --chat --raw"
            ;;
        tokenize) words='--special' ;;
        ps) words='--all' ;;
        wait) words='--pinned --timeout' ;;
        plan) words='--ram --vram --context --sequences --kv-type' ;;
        call) words='--more' ;;
        esac
    elif [ "$position" -eq 0 ]; then
        case $verb in
        run | chat | embed | tokenize | detokenize | load | unload | pin | unpin | wait | plan)
            words=$(residentctl list 2>/dev/null | awk 'NR > 1 { print $1 }')
            ;;
        policy) words='check show' ;;
        esac
        [ "$verb" = plan ] && mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    elif [ "$verb" = policy ]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    fi
    local found
    mapfile -t found < <(compgen -W "$words" -- "$cur")
    COMPREPLY+=("${found[@]}")
}

complete -o filenames -F _residentctl residentctl
