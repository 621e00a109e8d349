//! An LXD that answers and cannot do what a class asks for; packages and scripts that are not what they should be.

use standin::farm::{self, Setup};
use standin::lxd::ImageEntry;

use super::support::*;
use super::{check_launch_fails, check_parts, check_queued, check_runs, reason, row, table};

#[test]
fn what_a_class_names() {
    table(
        "class",
        vec![
            row("an image that does not exist", || {
                let rig = Rig::prepared(Plan::default(), |before| before.lxd.unwrap().remove_image(farm::IMAGE));
                check_launch_fails(&rig, &["launches of class", "no image \"standin\"", "lxc image list"], |rig| {
                    rig.standin().add_image(ImageEntry::container(farm::IMAGE));
                })
            }),
            row("a profile that does not exist", || {
                let classes = "  - {name: small, labels: [self-hosted], image: IMAGE, profiles: [default, fast], type: container, runner_os: linux, runner_arch: x64, template: false}\n";
                let rig = Rig::new(Plan { classes: classes.to_owned(), ..Plan::default() });
                check_launch_fails(&rig, &["launches of class", "no profile \"fast\"", "lxc profile list"], |rig| {
                    let like_default = standin::lxd::ProfileEntry::default();
                    rig.standin().add_profile("fast", like_default);
                })
            }),
            row("a storage pool that is full", || {
                let rig = Rig::prepared(Plan::default(), |before| before.lxd.unwrap().set_pool_full(true));
                check_launch_fails(
                    &rig,
                    &[
                        "storage pool of class",
                        "no space left",
                        "storage pool \"default\" has 0 MiB left",
                        "lxc storage info default",
                    ],
                    |rig| {
                        rig.standin().set_pool_full(false);
                    },
                )
            }),
        ],
    );
}

#[test]
fn set_up_scripts() {
    table(
        "set-up script",
        vec![
            row("fails", || {
                let rig = Rig::new(Plan::default());
                let output: String = (0..60).map(|n| format!("step {n:02}\n")).collect();
                rig.insides.set_setup(Setup::Fails(3, output));
                let parts = ["setup-runner.sh ended with code 3", "step 20", "step 59"];
                let got = check_launch_fails(&rig, &parts, |rig| rig.insides.set_setup(Setup::Works));
                assert_eq!(rig.daemon.count(&["step 19"]), 0, "only the last 40 lines");
                got
            }),
            row("hangs", || {
                let rig = Rig::new(Plan::with("provision_timeout: 3"));
                rig.insides.set_setup(Setup::Hangs("still unpacking\n".to_owned()));
                let parts = ["setup-runner.sh printed nothing for 3 s", "provision_timeout", "still unpacking"];
                check_launch_fails(&rig, &parts, |rig| rig.insides.set_setup(Setup::Works))
            }),
        ],
    );
}

#[test]
fn packages() {
    table(
        "runner package",
        vec![row("whose checksum is wrong", || {
            let rig = Rig::new(Plan { bad_checksum: true, ..Plan::default() });
            let job = rig.queue();
            let told = rig.daemon.wait(&["ERROR", "runner package"]);
            check_parts(&told, &["is damaged", "its SHA-256 should be 000", "look for a proxy"]);
            rig.daemon.wait_count(&["download"], 2);
            rig.daemon.wait(&[&format!("job={job}"), "not launched"]);
            check_queued(&rig, job);
            // Never kept, never used.
            let kept = std::fs::read_dir(rig.scratch.0.join("cache")).unwrap();
            let kept: Vec<_> = kept.map(|entry| entry.unwrap().file_name()).collect();
            assert!(!kept.iter().any(|name| name.to_string_lossy().ends_with(".tar.gz")), "{kept:?}");
            assert_eq!(rig.instances(), Vec::<String>::new());
            assert_eq!(rig.complaints(), [told.as_str()], "told once");
            let honest = standin::package::build(&rig.scratch.0.join("offered"), "x64", standin::package::VERSION);
            let honest = honest.unwrap();
            rig.github.offer(&honest.path, "x64", Some(honest.sha256)).unwrap();
            check_runs(&rig, job);
            reason(&rig, &told)
        })],
    );
}
