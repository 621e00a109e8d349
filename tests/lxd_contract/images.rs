//! Images that are made of instances: they are there with all that they are called, and what is made of them is as the
//! instance was.

use std::time::Instant;

use lxdrunner::lxd::{ErrorKind, Image, NewInstance, Patience, Source};
use lxdrunner::model::{ConfigMap, InstanceStatus, keys};

use crate::bench::{Bench, PATIENCE, PROJECT, fails_with, on_both};

fn image_of(bench: &Bench, fingerprint: &str) -> Option<Image> {
    bench.lxd.images(PROJECT).unwrap().into_iter().find(|image| image.fingerprint == fingerprint)
}

#[test]
fn an_instance_becomes_an_image_and_instances_are_made_of_it() {
    on_both("publish", |bench| {
        let original = bench.name(1);
        bench.create(&NewInstance { ephemeral: false, ..bench.new_instance(&original) }).unwrap();
        bench.power(&original, "start").unwrap();
        bench.lxd.push_file(PROJECT, &original, "/opt/x", 0o600, &mut &b"abc"[..], 3, PATIENCE).unwrap();
        let properties = [(keys::OWNER, bench.owner()), ("os", "debian".to_owned())];
        let properties: ConfigMap = properties.map(|(key, value)| (key.to_owned(), value)).into();
        let publish_of = |name: &str, compression: &str| {
            let patience = Patience { quiet: PATIENCE, until: Instant::now() + PATIENCE, seen: &|_| {} };
            bench.lxd.publish(PROJECT, name, name, &properties, compression, &patience)
        };
        let publish = |compression: &str| publish_of(&original, compression);
        fails_with(publish("zstd"), ErrorKind::OperationFailed);
        bench.power(&original, "stop").unwrap();
        // At once by LXD, in the operation by Incus.
        let fails = |published: Result<String, lxdrunner::lxd::Error>, at_once: ErrorKind| {
            let error = published.unwrap_err();
            assert!(error.kind == at_once || error.kind == ErrorKind::OperationFailed, "{error}");
        };
        fails(publish("no-such"), ErrorKind::Refused(400));
        let nobody = bench.name(9);
        fails(publish_of(&nobody, "none"), ErrorKind::NotFound);
        let fingerprint = publish("zstd").unwrap();
        assert_eq!(fingerprint.len(), 64, "{fingerprint}");
        bench.owns_image(&fingerprint);
        // Incus adds those of the image that the instance was made of.
        let has_all = |image: &Image| properties.iter().all(|(key, value)| image.properties.get(key) == Some(value));
        // That the name is taken is found when the image is there already, without one.
        let nameless = || {
            let like_it = |image: &Image| has_all(image) && image.aliases().count() == 0;
            bench.lxd.images(PROJECT).unwrap().into_iter().filter(like_it).collect::<Vec<_>>()
        };
        fails_with(publish("none"), ErrorKind::OperationFailed);
        assert_eq!(nameless().len(), 1);
        nameless().iter().for_each(|image| bench.owns_image(&image.fingerprint));
        let image = image_of(bench, &fingerprint).unwrap();
        assert!(has_all(&image), "{image:?}");
        assert_eq!(image.aliases().collect::<Vec<_>>(), [&original]);
        assert_eq!((image.kind.as_str(), image.size > 1_000_000), ("container", true));
        assert_eq!(bench.lxd.image_alias(PROJECT, &original).unwrap().as_ref(), Some(&fingerprint));

        // The instance is not needed for what is made of the image, nor the image for what was made.
        bench.lxd.wait(&bench.lxd.delete(PROJECT, &original).unwrap(), PATIENCE).unwrap();
        let made = bench.name(2);
        let new = NewInstance { source: Source::Fingerprint(fingerprint.clone()), ..bench.new_instance(&made) };
        bench.create(&new).unwrap();
        let config = bench.whole_config(&made);
        assert_eq!(config["volatile.base_image"], fingerprint);
        assert_eq!(config[&format!("image.{}", keys::OWNER)], bench.owner());
        assert_eq!(bench.lxd.instance(PROJECT, &made).unwrap().unwrap().0.status, InstanceStatus::Stopped);
        // Who publishes that and says nothing of it makes an image with the same properties, but not the same name.
        let again = bench.publish_plainly(&made);
        let copy = image_of(bench, &again).unwrap();
        assert_eq!((copy.properties.get(keys::OWNER), copy.aliases().count()), (Some(&bench.owner()), 0));
        bench.power(&made, "start").unwrap();
        assert_eq!(bench.exec(&made, &["cat", "/opt/x"]).unwrap().stdout, "abc");
        for image in [&fingerprint, &again] {
            bench.lxd.wait(&bench.lxd.delete_image(PROJECT, image).unwrap(), PATIENCE).unwrap();
            assert_eq!(image_of(bench, image), None);
            fails_with(bench.lxd.delete_image(PROJECT, image), ErrorKind::NotFound);
        }
        assert_eq!(bench.lxd.image_alias(PROJECT, &original).unwrap(), None);
        assert_eq!(bench.exec(&made, &["cat", "/opt/x"]).unwrap().stdout, "abc");
    });
}
