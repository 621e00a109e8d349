//! What `--help` prints.

/// The help of the program.
pub(super) const ALL: &str = "\
lxdrunner turns an LXD or Incus host into a farm of ephemeral GitHub Actions runners.

Usage: lxdrunner [COMMAND] [OPTIONS]

Commands:
  serve         Run the daemon (what it does without a command)
  check         Check the config file, LXD and GitHub; say what is wrong and how to fix it
  bake          Make the templates that jobs start from now, instead of leaving it to the daemon
  status        Show what waits, runs and is kept ready now, and what does not work
  explain       Say why a job runs, waits or is not served here, and what happens next
  failures      Show the logs kept from failed instances
  hooks         Make, show or remove the webhooks at GitHub
  placeholders  Remove the placeholder runners at GitHub

Options:
  -c, --config FILE   The config file. Without it, $LXDRCFG, or the first of ./config.yml,
                      $XDG_CONFIG_HOME/lxdrunner/config.yml (~/.config/…), /etc/lxdrunner/config.yml
  -v, --verbose       Log every call (as LXDRUNNER_LOG=debug does)
  -h, --help          Show this help, or that of a command
  -V, --version       Show the version

Exit codes: 0 success, 1 failure, 2 usage error, 78 invalid configuration.";

pub(super) const SERVE: &str = "\
Runs the daemon: waits for GitHub's webhooks and starts an instance for each queued job.

Usage: lxdrunner [serve] [-c FILE] [-v]

  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
      --trace         Log, for each job, when each step of its start was done (as LXDRUNNER_TRACE=1 does)
  -h, --help          This text

Starting again loses nothing, and running jobs are not affected. Exit code 78: invalid configuration.";

pub(super) const CHECK: &str = "\
Checks the config file, then asks LXD and GitHub whether all that it names is there, one line each.

Usage: lxdrunner check [-c FILE] [-v]

  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Exit codes: 0 success, 1 something is to be fixed, 78 invalid configuration.";

pub(super) const EXPLAIN: &str = "\
Says why a job runs, waits or is not served here: first in one line, then what each class lacks, who is let in, caps, what
is under way for it, and what happens next and when. The running daemon is asked; without one, LXD and GitHub are.

Usage: lxdrunner explain JOB [-c FILE] [-v]

  JOB                 The address of the job's page (https://github.com/OWNER/REPO/actions/runs/RUN/job/ID) or of its API,
                      OWNER/REPO#ID, or the id, which is looked for in the daemon, or in 30 repositories at most
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Run it as root or as the daemon's user. Exit codes: 0 explained, 1 not found or not to be had, 2 JOB names no job,
78 invalid configuration.";

pub(super) const STATUS: &str = "\
Shows the current state: jobs and instances of each class, each job that is held up with its reason, what does not work, and
what is left of GitHub's limits. The running daemon is asked.

Usage: lxdrunner status [--metrics] [-c FILE] [-v]

      --metrics       The same as numbers, with counts since the daemon's start, in Prometheus' text format
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Run it as root or as the daemon's user. With web_metrics in the config file, GET /metrics on the webhook port answers the
same to those whom it names. Exit codes: 0 shown, 1 no daemon answers, 78 invalid configuration.";

pub(super) const HOOKS: &str = "\
Keeps the webhooks of all targets: one each, sending what is needed to the address of this host, signed with hooksecret.

Usage: lxdrunner hooks install|status|remove [--url URL] [-c FILE] [-v]

  install             Make those that are missing, set the others right, and let GitHub try each of them
  status              Say how they are, and what became of the last delivery
  remove              Remove those that lead to this address; others are left alone
  --url URL           Where GitHub finds this host; without it webhook_url of the config file
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

With webhook_url in the config file the daemon does all this by itself. Exit codes: 0 success, 1 failure.";

pub(super) const PLACEHOLDERS: &str = "\
Removes the placeholder runners of all targets at GitHub, those that `placeholders: true` in a config file made.

Usage: lxdrunner placeholders remove [-c FILE] [-v]

  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

A daemon with `placeholders: true` makes them anew: change its config file first.";

pub(super) const BAKE: &str = "\
Makes the templates that jobs' instances are copied from (in a cluster perhaps images), now and with progress. The daemon
does so by itself in the background, whenever an image, the runner's version or a class has changed.

Usage: lxdrunner bake [CLASS] [-c FILE] [-v]

  CLASS               The class (its name in runnermap); without it, all
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

It works beside a running daemon. Exit codes: 0 all templates are ready, 1 one is not, 2 no such class, 78 invalid
configuration.";

pub(super) const FAILURES: &str = "\
Shows the logs kept from failed instances: those whose set-up failed, whose runner did not come online in time, or that
lived for too long.

Usage: lxdrunner failures [INSTANCE] [-c FILE] [-v]

  INSTANCE            The instance's name, or the id of the job that it was launched for: print its logs; without it, list
                      all that are kept, the newest first
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Run it as root or as the daemon's user; it needs neither LXD nor GitHub. The newest 20 are kept (failures_kept in the
config file), as plain text in CACHE_HOME/failures. Control characters are shown escaped. Exit codes: 0 shown, 1 nothing is kept of INSTANCE, 78 invalid configuration.";
