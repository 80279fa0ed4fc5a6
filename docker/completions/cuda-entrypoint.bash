# shellcheck shell=bash
# Completion of cuda-entrypoint for bash, written by `make docs` from the tables of commands and options.

_cuda_entrypoint() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]:-}
  local index words=''
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W 'run check kernels explain stack schema install help --help --version' -- "$word")
    return
  fi
  for ((index = 2; index < COMP_CWORD; index++)); do
    if [[ ${COMP_WORDS[index]} == -- ]]; then
      # What follows is the service's command.
      mapfile -t COMPREPLY < <(compgen -c -- "$word"; compgen -f -- "$word")
      return
    fi
  done
  case $before in
    --format) words='human json' ;;
    --gpu) words='required optional off' ;;
    --log) words='error warn info debug trace' ;;
    --mode) words='enforce warn off' ;;
    --smoke) words='separate handoff native native=all off' ;;
    --smoke-devices) words='first all' ;;
    --stage) words='image device smoke all health' ;;
    --allow | --warn | --deny) words=$(_cuda_entrypoint_codes) ;;
    --helper-path | --python | --receipt | --report | --stack | --termination-log)
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      return
      ;;
  esac
  if [[ -n $words ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    return
  fi
  case $command in
    run) words='--mode --init --wait --stack --archs --gpu --allow --warn --deny --smoke --smoke-devices --smoke-timeout --python --device-timeout --helper-path --format --quiet --report --termination-log --receipt --log --help' ;;
    check) words='--stage --json --mode --init --wait --stack --archs --gpu --allow --warn --deny --smoke --smoke-devices --smoke-timeout --python --device-timeout --helper-path --format --quiet --report --termination-log --receipt --log --help' ;;
    kernels) words='--archs --json --format --help' ;;
    explain) words=$(_cuda_entrypoint_codes) ;;
    stack) words='show capture --json --stack --archs --format --log --name --python --device-timeout --helper-path --allow --warn --deny --help' ;;
    schema) words='stack report' ;;
    install) words=' --help' ;;
    help) words=' --help' ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  if [[ $command == kernels || $command == install ]] && [[ $word != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}

_cuda_entrypoint_codes() {
  echo 'storage-fault file-unreadable python-missing python-unknown python-version package-missing package-version package-incomplete package-cuda-tag package-torch-tag package-duplicate file-owner numpy-abi requires-dist editable-trap file-missing cudart-version nvrtc-version cudnn-version library-missing library-shadowed undefined-symbol stub-driver kernels-missing kernels-ptx-only compiler-missing cache-unwritable user-unknown variable-mismatch loader-missing require-cuda driver-missing driver-too-old driver-minor-compat driver-floor gpu-missing gpu-count gpu-memory gpu-not-ready gpu-unhealthy nvml-missing nvml-differs shm-small memlock-low helper-crashed helper-timeout arch-unsupported arch-unlisted kernels-unusable smoke-import smoke-forward smoke-wrong smoke-device kernel-load jit-at-runtime smoke-timeout'
}

complete -o filenames -F _cuda_entrypoint cuda-entrypoint
