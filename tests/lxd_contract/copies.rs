//! Copies, and creations that start what they create.

use std::collections::BTreeSet;

use lxdrunner::lxd::{ErrorKind, NewInstance, Source};
use lxdrunner::model::{InstanceStatus, InstanceType};

use crate::bench::{PATIENCE, PROJECT, fails_with, on_both};

#[test]
fn a_copy_has_the_roots_ids_and_an_identity_of_its_own() {
    on_both("copy", |bench| {
        let (original, copies) = (bench.name(1), [bench.name(2), bench.name(3)]);
        bench.create(&NewInstance { ephemeral: false, ..bench.new_instance(&original) }).unwrap();
        bench.power(&original, "start").unwrap();
        bench.lxd.push_file(PROJECT, &original, "/opt/x", 0o600, &mut &b"abc"[..], 3, PATIENCE).unwrap();
        bench.power(&original, "stop").unwrap();
        let copy = |name: &str| NewInstance { source: Source::Copy(original.clone()), ..bench.new_instance(name) };
        let look = |name: &str| bench.whole_config(name);
        let of_original = look(&original);
        let mut seen = vec![of_original.clone()];
        for name in &copies {
            bench.create(&copy(name)).unwrap();
            let config = look(name);
            for key in ["volatile.last_state.idmap", "volatile.base_image"] {
                assert_eq!(config[key], of_original[key], "{key}");
            }
            bench.power(name, "start").unwrap();
            assert_eq!(bench.exec(name, &["cat", "/opt/x"]).unwrap().stdout, "abc");
            seen.push(look(name));
        }
        for key in ["volatile.eth0.hwaddr", "volatile.uuid"] {
            let values: BTreeSet<&String> = seen.iter().map(|config| &config[key]).collect();
            assert_eq!(values.len(), 3, "{key}: {values:?}");
        }
        // From nothing, from what is of another kind, and from what runs.
        let from = |source: &str| Source::Copy(source.to_owned());
        let another = bench.name(4);
        let nothing = NewInstance { source: from("no-such"), ..copy(&another) };
        fails_with(bench.lxd.create(PROJECT, "", &nothing), ErrorKind::NotFound);
        let kind = NewInstance { kind: InstanceType::VirtualMachine, ..copy(&another) };
        // LXD does not mind which kind is asked for: a copy is of its original's.
        bench.create(&kind).unwrap();
        assert_eq!(bench.lxd.instance(PROJECT, &another).unwrap().unwrap().0.kind, InstanceType::Container);
        let of_running = bench.name(5);
        bench.create(&NewInstance { source: from(&copies[0]), ..copy(&of_running) }).unwrap();
        let (instance, _) = bench.lxd.instance(PROJECT, &of_running).unwrap().unwrap();
        assert_eq!((instance.status, instance.ephemeral), (InstanceStatus::Stopped, true));
    });
}

#[test]
fn what_can_be_started_at_its_creation_is_and_else_it_is_said() {
    on_both("started", |bench| {
        let check = |n: u32, starts: bool| {
            let name = bench.name(n);
            let (operation, started) = bench.lxd.create_started(PROJECT, "", &bench.new_instance(&name)).unwrap();
            assert_eq!(started, starts);
            bench.lxd.wait(&operation, PATIENCE).unwrap();
            let (instance, _) = bench.lxd.instance(PROJECT, &name).unwrap().unwrap();
            assert_eq!(instance.status == InstanceStatus::Running, starts);
        };
        // Nothing is expected of a server that was not asked.
        check(1, false);
        let server = bench.lxd.server().unwrap();
        check(2, server.extensions.iter().any(|extension| extension == "instance_create_start"));
        let (clash, _) = bench.lxd.create_started(PROJECT, "", &bench.new_instance(&bench.name(2))).unwrap();
        fails_with(bench.lxd.wait(&clash, PATIENCE), ErrorKind::OperationFailed);
    });
}
