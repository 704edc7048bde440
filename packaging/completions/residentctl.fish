# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion of residentctl for fish. Models are asked of the service.

set -l verbs list run chat embed tokenize detokenize ps cancel usage status top metrics load unload pin unpin wait reload plan policy call

function __residentctl_models
    residentctl list 2>/dev/null | awk 'NR > 1 { print $1 }'
end

complete -c residentctl -f
complete -c residentctl -n "not __fish_seen_subcommand_from $verbs" -l socket -r -F -d 'socket of the service'
complete -c residentctl -n "not __fish_seen_subcommand_from $verbs" -l json -d 'print the reply as JSON'
complete -c residentctl -n "not __fish_seen_subcommand_from $verbs" -l version
complete -c residentctl -n "not __fish_seen_subcommand_from $verbs" -l help
complete -c residentctl -n "not __fish_seen_subcommand_from $verbs" -a "$verbs"
complete -c residentctl -n '__fish_seen_subcommand_from run chat embed tokenize detokenize load unload pin unpin wait plan' -a '(__residentctl_models)'
complete -c residentctl -n '__fish_seen_subcommand_from plan' -F
complete -c residentctl -n '__fish_seen_subcommand_from run chat' -s n -x
for option in temperature top-k top-p min-p repeat-penalty seed stop system adapter
    complete -c residentctl -n '__fish_seen_subcommand_from run chat' -l $option -x
end
complete -c residentctl -n '__fish_seen_subcommand_from run chat' -l json-schema -r -F
complete -c residentctl -n '__fish_seen_subcommand_from run chat' -l grammar -r -F
complete -c residentctl -n '__fish_seen_subcommand_from run chat' -l stats
complete -c residentctl -n '__fish_seen_subcommand_from run' -l chat
complete -c residentctl -n '__fish_seen_subcommand_from run' -l raw
complete -c residentctl -n '__fish_seen_subcommand_from tokenize' -l special
complete -c residentctl -n '__fish_seen_subcommand_from ps' -l all
complete -c residentctl -n '__fish_seen_subcommand_from wait' -l pinned
complete -c residentctl -n '__fish_seen_subcommand_from wait' -l timeout -x
for option in ram vram context sequences kv-type
    complete -c residentctl -n '__fish_seen_subcommand_from plan' -l $option -x
end
complete -c residentctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from check show' -a 'check show'
complete -c residentctl -n '__fish_seen_subcommand_from check show' -F
complete -c residentctl -n '__fish_seen_subcommand_from call' -l more
