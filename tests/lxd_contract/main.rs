//! What we count on of LXD, as cases that run on the stand-in always and on a real LXD where there is one.
//!
//! `LXDRUNNER_TEST_LXD_SOCKET` names the real one's socket, `LXDRUNNER_TEST_IMAGE` the alias of a container image with
//! systemd on it (default: `dev`). With `LXDRUNNER_TEST_REQUIRE_LXD=1` the absence of a real LXD is a failure.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod bench;
mod copies;
mod files;
mod images;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bench::{Bench, FALLS_SILENT, PATIENCE, PRINTS, PROJECT, exec, fails_with, on_both, real_socket};
use lxdrunner::lxd::transport::{Body, Keep, Request, Transport};
use lxdrunner::lxd::{ErrorKind, NewInstance, Operation, Patience, Source};
use lxdrunner::model::{ConfigMap, InstanceStatus, InstanceType, Product, Timestamp, keys};

#[test]
fn a_real_lxd_is_there_where_it_is_required() {
    let required = std::env::var("LXDRUNNER_TEST_REQUIRE_LXD").is_ok_and(|value| value == "1");
    assert!(!required || real_socket().is_some(), "set LXDRUNNER_TEST_LXD_SOCKET to the socket of a real LXD");
}

#[test]
fn the_server_says_who_it_is() {
    on_both("server", |bench| {
        let server = bench.lxd.server().unwrap();
        assert!(server.trusted);
        assert_eq!(bench.lxd.product(), server.product);
        assert!(server.version.starts_with(|c: char| c.is_ascii_digit()), "{}", server.version);
        assert!(server.extensions.iter().any(|e| e == "instances"));
        assert!(!server.architectures.is_empty());
    });
}

#[test]
fn a_new_instance_is_as_it_was_asked_for_and_stopped() {
    on_both("new", |bench| {
        let name = bench.name(1);
        let before = Timestamp::now();
        let mut new = bench.new_instance(&name);
        new.config.insert(keys::JOB.to_owned(), "7".to_owned());
        bench.create(&new).unwrap();
        let (instance, etag) = bench.lxd.instance(PROJECT, &name).unwrap().unwrap();
        assert_eq!(instance.name, name);
        assert_eq!(instance.project, PROJECT);
        assert_eq!(instance.kind, InstanceType::Container);
        assert_eq!(instance.status, InstanceStatus::Stopped);
        assert!(instance.ephemeral);
        // To the second: that is as much as a timestamp may tell.
        assert!(instance.created_at.unwrap().0 >= before.0 / 1000 * 1000, "{:?}", instance.created_at);
        assert_eq!(instance.config[keys::OWNER], bench.owner());
        assert_eq!(instance.config[keys::JOB], "7");
        assert!(instance.config.contains_key("volatile.base_image"));
        assert!(!etag.is_empty());
        assert_eq!(bench.lxd.processes(PROJECT, &name).unwrap(), 0);
        // It was not started, so it does not vanish by itself: it must be deleted.
        bench.lxd.wait(&bench.lxd.delete(PROJECT, &name).unwrap(), PATIENCE).unwrap();
        assert_eq!(bench.lxd.instance(PROJECT, &name).unwrap(), None);
    });
}

#[test]
fn of_two_creations_of_one_name_exactly_one_wins() {
    on_both("race", |bench| {
        let new = bench.new_instance(&bench.name(1));
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| scope.spawn(|| bench.create(&new)));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let lost = results.into_iter().find(Result::is_err).unwrap();
        fails_with(lost, ErrorKind::OperationFailed);
        fails_with(bench.create(&new), ErrorKind::OperationFailed);
    });
}

#[test]
fn a_creation_that_cannot_be_is_refused() {
    #[derive(Clone, Copy)]
    enum When {
        AtOnce(ErrorKind),
        InTheOperation,
        /// At once by LXD, in the operation by Incus.
        Either(ErrorKind),
    }
    use When::{AtOnce, Either, InTheOperation};

    #[track_caller]
    fn check(bench: &Bench, project: &str, expected: When, change: impl Fn(&mut NewInstance)) {
        let mut new = bench.new_instance(&bench.name(1));
        change(&mut new);
        let name = new.name.clone();
        match (bench.lxd.create(project, "", &new), expected) {
            (begun, AtOnce(kind)) => fails_with(begun, kind),
            (Err(error), Either(kind)) => assert_eq!(error.kind, kind, "{error}"),
            (begun, InTheOperation | Either(_)) => {
                fails_with(bench.lxd.wait(&begun.unwrap(), PATIENCE), ErrorKind::OperationFailed);
            }
        }
        assert_eq!(bench.lxd.instance(PROJECT, &name).unwrap(), None);
    }

    fn device(pairs: &[(&str, &str)]) -> ConfigMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    on_both("refused", |bench| {
        let bad_name = AtOnce(ErrorKind::Refused(400));
        check(bench, PROJECT, Either(ErrorKind::NotFound), |new| new.source = Source::Alias("no-such".to_owned()));
        let no_image = |new: &mut NewInstance| new.source = Source::Fingerprint("0123456789ab".to_owned());
        let clustered = bench.lxd.server().unwrap().clustered;
        check(bench, PROJECT, if clustered { AtOnce(ErrorKind::NotFound) } else { InTheOperation }, no_image);
        check(bench, PROJECT, AtOnce(ErrorKind::Refused(500)), |new| new.profiles = vec!["no-such".to_owned()]);
        check(bench, "no-such", AtOnce(ErrorKind::NotFound), |_| {});
        check(bench, PROJECT, bad_name, |new| new.name = "with_underscore".to_owned());
        if bench.lxd.server().unwrap().product == Product::Lxd {
            check(bench, PROJECT, bad_name, |new| new.name = "1-starts-with-a-number".to_owned());
        }
        check(bench, PROJECT, bad_name, |new| new.name = "ends-with-a-hyphen-".to_owned());
        check(bench, PROJECT, bad_name, |new| new.name = "n".repeat(64));
        check(bench, PROJECT, InTheOperation, |new| drop(new.config.insert("no-such".to_owned(), "1".to_owned())));
        check(bench, PROJECT, InTheOperation, |new| new.kind = InstanceType::VirtualMachine);
        check(bench, PROJECT, InTheOperation, |new| new.profiles.clear());
        check(bench, PROJECT, InTheOperation, |new| {
            let root = device(&[("type", "disk"), ("path", "/"), ("pool", "no-such")]);
            new.devices.insert("root".to_owned(), root);
        });
        check(bench, PROJECT, InTheOperation, |new| {
            let nic = device(&[("type", "nic"), ("network", "no-such"), ("name", "eth0")]);
            new.devices.insert("eth0".to_owned(), nic);
        });
        check(bench, PROJECT, InTheOperation, |new| {
            new.devices.insert("x".to_owned(), device(&[("type", "no-such")]));
        });
        check(bench, PROJECT, if clustered { AtOnce(ErrorKind::Refused(500)) } else { InTheOperation }, |new| {
            // Nothing listens there.
            let server = "https://127.0.0.1:1".to_owned();
            new.source = Source::Remote { server, protocol: "simplestreams".to_owned(), alias: "x".to_owned() };
        });
    });
}

#[test]
fn a_cluster_member_can_be_named_in_a_cluster_only() {
    on_both("target", |bench| {
        if bench.lxd.server().unwrap().clustered {
            assert!(!bench.lxd.cluster_members().unwrap().is_empty());
            return;
        }
        let new = bench.new_instance(&bench.name(1));
        fails_with(bench.lxd.create(PROJECT, "no-such", &new), ErrorKind::Refused(400));
        fails_with(bench.lxd.cluster_members(), ErrorKind::Refused(500));
    });
}

#[test]
fn a_listing_has_the_owners_instances_only() {
    on_both("list", |bench| {
        let (ours, others) = (bench.name(1), bench.name(2));
        bench.create(&bench.new_instance(&ours)).unwrap();
        let mut new = bench.new_instance(&others);
        new.config.insert(keys::OWNER.to_owned(), "some one's & more".to_owned());
        bench.create(&new).unwrap();
        let names = |project: &str, owner: &str| -> Vec<String> {
            bench.lxd.instances(project, owner).unwrap().into_iter().map(|i| i.name).collect()
        };
        assert_eq!(names(PROJECT, &bench.owner()), [ours]);
        // No filter of the server's can be trusted with such a value.
        assert_eq!(names(PROJECT, "some one's & more"), [others]);
        assert!(names(PROJECT, "nobody").is_empty());
        assert!(names(PROJECT, "").is_empty());
    });
}

#[test]
fn keys_are_merged_and_a_stale_etag_loses() {
    on_both("etag", |bench| {
        let name = bench.stopped();
        let phase = |value: &str| ConfigMap::from([(keys::PHASE.to_owned(), value.to_owned())]);
        let (_, etag) = bench.lxd.instance(PROJECT, &name).unwrap().unwrap();
        bench.lxd.patch_config(PROJECT, &name, &phase("one"), Some(&etag)).unwrap();
        let stale = bench.lxd.patch_config(PROJECT, &name, &phase("two"), Some(&etag));
        fails_with(stale, ErrorKind::PreconditionFailed);
        let (instance, fresh) = bench.lxd.instance(PROJECT, &name).unwrap().unwrap();
        assert_eq!(instance.config[keys::PHASE], "one");
        assert_eq!(instance.config[keys::OWNER], bench.owner());
        bench.lxd.patch_config(PROJECT, &name, &phase("three"), Some(&fresh)).unwrap();
        bench.lxd.patch_config(PROJECT, &name, &phase("four"), None).unwrap();
        let (instance, _) = bench.lxd.instance(PROJECT, &name).unwrap().unwrap();
        assert_eq!(instance.config[keys::PHASE], "four");
        let unknown = ConfigMap::from([("no-such".to_owned(), "1".to_owned())]);
        fails_with(bench.lxd.patch_config(PROJECT, &name, &unknown, None), ErrorKind::Refused(500));
        fails_with(bench.lxd.patch_config(PROJECT, &bench.name(2), &phase("x"), None), ErrorKind::NotFound);
    });
}

#[test]
fn power_goes_its_ways_only() {
    on_both("power", |bench| {
        let name = bench.stopped();
        let status = || bench.lxd.instance(PROJECT, &name).unwrap().map(|(instance, _)| instance.status);
        for action in ["stop", "freeze", "unfreeze"] {
            fails_with(bench.power(&name, action), ErrorKind::OperationFailed);
        }
        fails_with(bench.exec(&name, &["true"]), ErrorKind::Refused(400));
        fails_with(bench.power(&name, "no-such"), ErrorKind::Refused(400));
        bench.power(&name, "start").unwrap();
        assert_eq!(status(), Some(InstanceStatus::Running));
        assert!(bench.lxd.processes(PROJECT, &name).unwrap() > 0);
        for action in ["start", "unfreeze"] {
            fails_with(bench.power(&name, action), ErrorKind::OperationFailed);
        }
        fails_with(bench.lxd.delete(PROJECT, &name), ErrorKind::Refused(400));
        bench.power(&name, "freeze").unwrap();
        assert_eq!(status(), Some(InstanceStatus::Frozen));
        for action in ["start", "freeze"] {
            fails_with(bench.power(&name, action), ErrorKind::OperationFailed);
        }
        fails_with(bench.exec(&name, &["true"]), ErrorKind::Refused(400));
        fails_with(bench.lxd.delete(PROJECT, &name), ErrorKind::Refused(400));
        bench.power(&name, "unfreeze").unwrap();
        assert_eq!(status(), Some(InstanceStatus::Running));
        // An ephemeral one is gone when the operation that stopped it is over.
        bench.power(&name, "stop").unwrap();
        assert_eq!(status(), None);
    });
}

#[test]
fn one_that_is_not_ephemeral_survives_its_stop() {
    on_both("lasting", |bench| {
        let name = bench.name(1);
        bench.create(&NewInstance { ephemeral: false, ..bench.new_instance(&name) }).unwrap();
        bench.power(&name, "start").unwrap();
        bench.power(&name, "stop").unwrap();
        let (instance, _) = bench.lxd.instance(PROJECT, &name).unwrap().unwrap();
        assert_eq!((instance.status, instance.ephemeral), (InstanceStatus::Stopped, false));
    });
}

#[test]
fn of_a_start_that_fails_lxd_keeps_a_log() {
    on_both("startlog", |bench| {
        let name = bench.name(1);
        let mut new = bench.new_instance(&name);
        new.config.insert("raw.idmap".to_owned(), "both 4000000000 1000".to_owned());
        bench.create(&new).unwrap();
        assert_eq!(bench.lxd.log_tail(PROJECT, &name, "lxc.log", 4096).unwrap_or_default(), "");
        fails_with(bench.power(&name, "start"), ErrorKind::OperationFailed);
        let log = bench.lxd.log_tail(PROJECT, &name, "lxc.log", 4096).unwrap();
        assert!(log.contains("newuidmap") && log.contains("not allowed"), "{log}");
        assert!(bench.lxd.log_tail(PROJECT, &name, "lxc.log", 10).unwrap().len() <= 10);
    });
}

#[test]
fn what_a_reboot_and_an_evacuation_do_to_an_instance_can_be_said() {
    on_both("reboot", |bench| {
        bench.lxd.server().unwrap();
        assert!(bench.lxd.evacuates());
        let name = bench.name(1);
        let config = [("boot.autostart", "false"), ("cluster.evacuate", "stop")];
        let config: ConfigMap = config.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let mut new = bench.new_instance(&name);
        new.config.extend(config.clone());
        bench.create(&new).unwrap();
        let whole = bench.whole_config(&name);
        assert!(config.iter().all(|(key, value)| whole.get(key) == Some(value)), "{whole:?}");
    });
}

#[test]
fn nothing_can_be_done_with_an_instance_that_is_not() {
    on_both("absent", |bench| {
        let name = bench.name(1);
        assert_eq!(bench.lxd.instance(PROJECT, &name).unwrap(), None);
        fails_with(bench.lxd.set_state(PROJECT, &name, "start", false), ErrorKind::NotFound);
        fails_with(bench.lxd.processes(PROJECT, &name), ErrorKind::NotFound);
        fails_with(bench.lxd.delete(PROJECT, &name), ErrorKind::NotFound);
        fails_with(bench.exec(&name, &["true"]), ErrorKind::NotFound);
        fails_with(bench.lxd.make_directory(PROJECT, &name, "/opt/x", 0o755), ErrorKind::NotFound);
        assert_eq!(bench.lxd.pull_file_tail(PROJECT, &name, "/etc/hostname", 100, PATIENCE).unwrap(), None);
        // Names that would lead elsewhere in the path are names of nothing.
        for hostile in ["..", ".", "a/../../images", "a?project=b", "a%2Fb", "é", "a b", "a\r\nX-Header: b"] {
            assert_eq!(bench.lxd.instance(PROJECT, hostile).unwrap_or(None), None, "{hostile:?}");
        }
    });
}

#[test]
fn a_command_leaves_its_code_and_its_output() {
    on_both("exec", |bench| {
        let name = bench.running();
        let check = |command: &[&str], code: i64, stdout: &str, stderr: &str| {
            let result = bench.exec(&name, command).unwrap();
            let seen = (result.code, result.stdout.as_str(), result.stderr.as_str());
            assert_eq!(seen, (code, stdout, stderr), "{command:?}");
        };
        check(&["true"], 0, "", "");
        check(&["sh", "-c", "echo out; echo err >&2; exit 3"], 3, "out\n", "err\n");
        check(&["/no/such/command"], 127, "", "Command not found");
        check(&["/root"], 126, "", "Command not executable");
        fails_with(bench.exec(&name, &[]), ErrorKind::OperationFailed);

        let mut greeting = exec(&["printenv", "GREETING"]);
        greeting.environment.insert("GREETING".to_owned(), "a \"b\" $c é".to_owned());
        let said = bench.lxd.exec(PROJECT, &name, &greeting, PATIENCE).unwrap();
        assert_eq!(said.stdout, "a \"b\" $c é\n");

        // environment.* of the instance reaches it, and what the command is given goes before it.
        let config = ["FROM_CONFIG", "GREETING"].map(|name| (format!("environment.{name}"), "config".to_owned()));
        bench.lxd.patch_config(PROJECT, &name, &config.into(), None).unwrap();
        assert_eq!(bench.exec(&name, &["printenv", "FROM_CONFIG"]).unwrap().stdout, "config\n");
        assert_eq!(bench.lxd.exec(PROJECT, &name, &greeting, PATIENCE).unwrap().stdout, said.stdout);

        // Of much output, the end is kept.
        let much = bench.exec(&name, &["seq", "1", "20000"]).unwrap().stdout;
        assert_eq!(much.len(), 64 * 1024);
        assert!(much.ends_with("19999\n20000\n"));

        let mut unrecorded = exec(&["seq", "1", "5"]);
        unrecorded.record = false;
        let silent = bench.lxd.exec(PROJECT, &name, &unrecorded, PATIENCE).unwrap();
        assert_eq!((silent.code, silent.stdout.as_str()), (0, ""));

        // A command that is not waited for any more goes on, and ends with its instance.
        let sleep = bench.lxd.start_exec(PROJECT, &name, &exec(&["sleep", "1000"])).unwrap();
        fails_with(bench.lxd.wait(&sleep, Duration::from_millis(10)), ErrorKind::Timeout);
        let killed = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| bench.exec(&name, &["sleep", "1000"]));
            // The stop must come after the command's start, which an exec behind it in time shows well enough.
            bench.exec(&name, &["true"]).unwrap();
            bench.power(&name, "stop").unwrap();
            waiting.join().unwrap()
        });
        match killed {
            Ok(result) => assert_eq!(result.code, 137),
            // It came too late, or had hardly begun.
            Err(error) => {
                let early =
                    matches!(error.kind, ErrorKind::NotFound | ErrorKind::Refused(400) | ErrorKind::OperationFailed);
                assert!(early, "{error}");
            }
        }
    });
}

#[test]
fn an_ephemeral_instance_that_powers_off_by_itself_vanishes() {
    on_both("poweroff", |bench| {
        let name = bench.running();
        // Whether the command sees its own end is not told.
        drop(bench.exec(&name, &["poweroff", "-f"]));
        bench.wait_until_gone(&name);
    });
}

#[test]
fn an_operation_that_is_unknown_is_not_found() {
    on_both("unknown", |bench| {
        let id = "01234567-89ab-4cde-8f01-23456789abcd".to_owned();
        let operation = Operation { id, what: "nothing".to_owned(), stream: 0 };
        fails_with(bench.lxd.wait(&operation, PATIENCE), ErrorKind::NotFound);
    });
}

#[test]
fn what_instances_are_made_of_can_be_looked_at() {
    on_both("objects", |bench| {
        let lxd = &bench.lxd;
        let fingerprint = lxd.image_alias(PROJECT, &bench.image).unwrap().unwrap();
        assert_eq!(fingerprint.len(), 64);
        assert_eq!(lxd.image_alias(PROJECT, "no-such").unwrap(), None);
        assert_eq!(lxd.image_alias(PROJECT, "no/such alias").unwrap(), None);
        let image = lxd.image(PROJECT, &fingerprint).unwrap().unwrap();
        assert_eq!((image.kind.as_str(), image.fingerprint.as_str()), ("container", fingerprint.as_str()));
        assert!(image.aliases().any(|alias| alias == bench.image));
        assert_eq!(lxd.image(PROJECT, &fingerprint[..12]).unwrap().unwrap(), image);
        assert_eq!(lxd.image(PROJECT, "0123456789ab").unwrap(), None);
        assert!(lxd.images(PROJECT).unwrap().iter().any(|i| i.fingerprint == fingerprint));

        let profile = lxd.profile(PROJECT, "default").unwrap().unwrap();
        assert_eq!(lxd.profile(PROJECT, "no-such").unwrap(), None);
        let of_type = |kind: &str| profile.devices.values().find(|device| device["type"] == kind).unwrap();
        let network = lxd.network(PROJECT, &of_type("nic")["network"]).unwrap().unwrap();
        assert!(network.managed);
        assert_eq!(network.kind, "bridge");
        assert!(!lxd.network(PROJECT, "lo").unwrap().unwrap().managed);
        assert_eq!(lxd.network(PROJECT, "no-such").unwrap(), None);
        let pool = lxd.storage_pool(&of_type("disk")["pool"]).unwrap().unwrap();
        assert_eq!(pool.status, "Created");
        let (used, total) = pool.space.unwrap();
        assert!(used < total, "{used} {total}");
        assert_eq!(lxd.storage_pool("no-such").unwrap(), None);
        assert!(lxd.projects().unwrap().iter().any(|project| project.name == "default"));
    });
}

#[test]
fn an_instance_of_an_unknown_project_is_not_found_and_its_listing_is_empty() {
    on_both("project", |bench| {
        assert_eq!(bench.lxd.instance("no-such", "x").unwrap(), None);
        // LXD 5.0 answers so; a later one may refuse.
        match bench.lxd.instances("no-such", &bench.owner()) {
            Ok(instances) => assert!(instances.is_empty()),
            Err(error) => assert_eq!(error.kind, ErrorKind::NotFound, "{error}"),
        }
    });
}

#[test]
fn what_a_command_prints_is_seen_while_it_runs() {
    on_both("prints", |bench| {
        let name = bench.running();
        let begin = |command: &str| bench.lxd.start_exec(PROJECT, &name, &exec(&["sh", "-c", command])).unwrap();
        let end = |running: &Operation| {
            let (quiet, until) = (Duration::from_secs(3), Instant::now() + PATIENCE);
            bench.lxd.end_exec((PROJECT, &name), running, &Patience { quiet, until, seen: &|_| {} })
        };
        let printed = bench.lxd.exec_output(PROJECT, end(&begin(PRINTS)).unwrap());
        assert_eq!((printed.code, printed.stdout.ends_with("the last\n")), (0, true), "{printed:?}");
        let silent = begin(FALLS_SILENT);
        fails_with(end(&silent), ErrorKind::Stalled);
        assert_eq!(bench.lxd.printed_so_far((PROJECT, &name), &silent), "a line\n");
    });
}

#[test]
fn a_wait_that_ends_before_the_operation_says_so_and_can_be_repeated() {
    on_both("wait", |bench| {
        let name = bench.running();
        let sleep = bench.lxd.start_exec(PROJECT, &name, &exec(&["sleep", "1000"])).unwrap();
        let began = Instant::now();
        fails_with(bench.lxd.wait(&sleep, Duration::from_millis(1)), ErrorKind::Timeout);
        fails_with(bench.lxd.wait(&sleep, Duration::ZERO), ErrorKind::Timeout);
        assert!(began.elapsed() < PATIENCE);
        bench.power(&name, "stop").unwrap();
        // The command was killed with its instance, which is an end; where it had hardly begun, LXD calls it a failure.
        match bench.lxd.wait(&sleep, PATIENCE) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind, ErrorKind::OperationFailed, "{error}"),
        }
    });
}

/// LXD 5.0 ignores `start: true`, which later ones and Incus honour.
#[test]
fn what_goes_over_the_wire_besides() {
    on_both("wire", |bench| {
        let transport = Transport::new(bench.lxd.socket());
        let ask = |method: &'static str, target: &str, body: &str| {
            let body = if body.is_empty() { Body::Empty } else { Body::Json(body.as_bytes().to_vec()) };
            let deadline = Instant::now() + PATIENCE;
            let target = target.to_owned();
            let request = Request { method, target, headers: Vec::new(), body, keep: Keep::All, deadline };
            let response = transport.exchange(request).unwrap();
            let json: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&response.body).unwrap();
            (response.status, json)
        };
        let error = |status: u16, answer: (u16, BTreeMap<String, serde_json::Value>)| {
            assert_eq!((answer.0, &answer.1["type"]), (status, &"error".into()), "{answer:?}");
            assert_eq!(answer.1["error_code"], status, "{answer:?}");
        };
        error(404, ask("GET", "/1.0/no-such", ""));
        error(404, ask("GET", "/2.0", ""));
        error(400, ask("POST", "/1.0/instances", "{bad"));
        // Incus has the better word for it.
        let status = if bench.lxd.server().unwrap().product == Product::Incus { 400 } else { 500 };
        error(status, ask("GET", "/1.0/instances?recursion=1&filter=bad%20", ""));
        let (status, whole) = ask("GET", "/1.0/instances?recursion=1", "");
        assert_eq!((status, whole["type"].as_str()), (200, Some("sync")));

        if bench.lxd.server().unwrap().version.starts_with("5.0") {
            let name = bench.name(1);
            let new =
                format!(r#"{{"name":"{name}","start":true,"source":{{"type":"image","alias":"{}"}}}}"#, bench.image);
            let (status, begun) = ask("POST", "/1.0/instances", &new);
            assert_eq!((status, begun["type"].as_str()), (202, Some("async")));
            let id = begun["metadata"]["id"].as_str().unwrap();
            assert!(begun["operation"].as_str().unwrap().starts_with(&format!("/1.0/operations/{id}")));
            let (_, ended) = ask("GET", &format!("/1.0/operations/{id}/wait?timeout=60"), "");
            assert_eq!(
                (&ended["metadata"]["status"], &ended["metadata"]["status_code"]),
                (&"Success".into(), &200.into())
            );
            let (instance, _) = bench.lxd.instance(PROJECT, &name).unwrap().unwrap();
            assert_eq!(instance.status, InstanceStatus::Stopped);
            assert!(!instance.ephemeral);
        }
    });
}

#[test]
fn the_event_stream_tells_of_instances_that_end() {
    on_both("events", |bench| {
        let mut events = bench.lxd.events().unwrap();
        let name = bench.running();
        // Other cases of this suite make events too.
        let mut next = || loop {
            let ended = events.next_end().unwrap();
            if ended.instance == name {
                return ended.action;
            }
        };
        // It ends by itself, and LXD deletes it, because it is ephemeral.
        bench.exec(&name, &["poweroff", "-f"]).ok();
        let first = next();
        assert!(matches!(first.as_str(), "instance-shutdown" | "instance-stopped"), "{first}");
        while next() != "instance-deleted" {}
    });
}

#[test]
fn who_listens_need_not_ask_for_an_operations_end() {
    on_both("ends", |bench| {
        // The stream is read elsewhere, as the daemon does it; it ends with the instance that is deleted last.
        let (name, last) = (bench.name(1), bench.name(2));
        let (opened, open) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut events = bench.lxd.events().unwrap();
                opened.send(()).unwrap();
                while events.next_end().unwrap().instance != last {}
            });
            open.recv().unwrap();
            let created = bench.lxd.create(PROJECT, "", &bench.new_instance(&name)).unwrap();
            bench.lxd.wait(&created, PATIENCE).unwrap();
            let clash = bench.create(&bench.new_instance(&name));
            fails_with(clash, ErrorKind::OperationFailed);
            bench.power(&name, "start").unwrap();
            let result = bench.exec(&name, &["sh", "-c", "echo out; echo err >&2; exit 3"]).unwrap();
            assert_eq!((result.code, result.stdout.as_str(), result.stderr.as_str()), (3, "out\n", "err\n"));
            assert_eq!(bench.exec(&name, &["/no/such/command"]).unwrap().code, 127);
            // What does not end in time does not, whoever tells.
            let sleep = bench.lxd.start_exec(PROJECT, &name, &exec(&["sleep", "1000"])).unwrap();
            assert!(sleep.stream > 0, "it was begun while nobody listened");
            fails_with(bench.lxd.wait(&sleep, Duration::from_millis(50)), ErrorKind::Timeout);
            bench.power(&name, "stop").unwrap();
            bench.create(&bench.new_instance(&last)).unwrap();
            bench.lxd.wait(&bench.lxd.delete(PROJECT, &last).unwrap(), PATIENCE).unwrap();
        });
        // Nobody listens any more: it is asked for.
        bench.create(&bench.new_instance(&last)).unwrap();
    });
}
