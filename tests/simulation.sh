#!/bin/sh
# The proof that nothing is lost and nothing leaks, and the proof of that proof.
set -eu
cd "$(dirname "$0")/.."

usage() {
    cat <<TXT
usage: tests/simulation.sh stories [COUNT]     plays so many simulated stories (2300, which are 100,000 job lives)
       tests/simulation.sh mutants [WHICH]     takes rules out of the code, and shows that a story or a table of the tests
                                               fails: all, tables (those alone), a number (so many of each kind,
                                               others each day), or words of a rule

A story that fails is told in short; SEED=N plays that one alone, and with STORY=full it is told whole:

    SEED=N STORY=full cargo test --test simulation

stories begins with the first seed; FIRST=N begins with the N-th, so that a run goes on where another one ended (COUNT is
the last seed then, not how many).
TXT
}

# Stories are mostly waiting for an optimiser; what the project depends on stays as it is built for the other tests.
quick='profile.dev.package.lxdrunner.opt-level=1'

case ${1:-} in
stories)
    SEEDS=${2:-2300} cargo test --locked --config "$quick" --test simulation every_job -- --nocapture
    ;;
mutants)
    LXDRUNNER_MUTANTS=${2:-all} cargo test --locked --test mutants every_mutant_is_caught -- --nocapture
    ;;
*)
    usage
    exit 2
    ;;
esac
