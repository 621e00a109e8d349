//! Why LXD could not make an instance: looks whether what the class names is there. LXD's own words often do not name
//! the thing that is missing, and never the fix.

use crate::config::Class;
use crate::lxd::{Error, Lxd};
use crate::model::Devices;
use crate::runner::provision::is_fingerprint;
use crate::steps::{Cause, Fault};

/// A pool with less room than this, in bytes, is as good as full.
const AS_GOOD_AS_FULL: u64 = 256 * 1024 * 1024;

/// What is wrong; `None` where nothing was found, or LXD does not tell. `of_image`: it was to be made from the class's image.
pub fn why_not_created(lxd: &Lxd, class: &Class, of_image: bool) -> Option<Cause> {
    let known = |cause: Result<Option<Cause>, Error>| cause.ok().flatten();
    let class_is = |text: Option<String>| text.map(|text| Cause { fault: Fault::Class, text });
    let image = || match of_image {
        true => Ok(image(lxd, class)?.map(|text| Cause { fault: Fault::Source, text })),
        false => Ok(None),
    };
    let pool = known(pool(lxd, class));
    // LXD says of an image server's image only that it may be the cause.
    let full = || pool.clone().filter(|cause| cause.fault == Fault::Storage);
    full().or_else(|| known(image())).or_else(|| known(profiles(lxd, class).map(class_is))).or(pool)
}

/// That the class's storage pool is full, where it is.
pub fn full_pool(lxd: &Lxd, class: &Class) -> Option<String> {
    let cause = pool(lxd, class).ok().flatten()?;
    (cause.fault == Fault::Storage).then_some(cause.text)
}

fn image(lxd: &Lxd, class: &Class) -> Result<Option<String>, Error> {
    let product = lxd.product();
    if let Some(origin) = class.image.origin(product) {
        let (image, server) = (&class.image, &origin.server);
        return Ok(Some(origin.of_other_product(product).unwrap_or_else(|| {
            format!(
                "{product} fetches the image {image} as {} from {server}: if that is what failed, see whether this host \
                 reaches it and whether it has the image: {}",
                origin.alias,
                origin.list_command(product)
            )
        })));
    }
    let (client, name) = (product.client(), &class.image.to_string());
    let project = &class.project;
    let missing = format!("project {project} has no image {name:?}: see {client} image list");
    if is_fingerprint(name) {
        let found = lxd.image(project, name)?.is_some();
        return Ok((!found).then_some(missing));
    }
    let found = lxd.image_alias(project, name)?.is_some();
    Ok((!found).then(|| format!("{missing}, or write REMOTE:ALIAS, such as ubuntu:24.04")))
}

fn profiles(lxd: &Lxd, class: &Class) -> Result<Option<String>, Error> {
    for profile in &class.profiles {
        if lxd.profile(&class.project, profile)?.is_none() {
            let (project, client) = (&class.project, lxd.product().client());
            return Ok(Some(format!(
                "project {project} has no profile {profile:?}: see {client} profile list, then make it ({client} profile \
                 create {profile}) or take it out of the class's profiles"
            )));
        }
    }
    Ok(None)
}

fn pool(lxd: &Lxd, class: &Class) -> Result<Option<Cause>, Error> {
    let class_is = |text: String| Ok(Some(Cause { fault: Fault::Class, text }));
    let client = lxd.product().client();
    let mut devices = Devices::new();
    for profile in &class.profiles {
        devices.extend(lxd.profile(&class.project, profile)?.map(|p| p.devices).unwrap_or_default());
    }
    devices.extend(class.devices.clone());
    let has = |device: &std::collections::BTreeMap<String, String>, key: &str, value: &str| {
        device.get(key).is_some_and(|v| v == value)
    };
    let root = devices.values().find(|d| has(d, "type", "disk") && has(d, "path", "/"));
    let Some(root) = root else {
        return class_is(format!(
            "neither the class nor its profiles have a root disk: {client} profile device add PROFILE root disk path=/ \
             pool=POOL"
        ));
    };
    let Some(name) = root.get("pool") else { return Ok(None) };
    let Some(pool) = lxd.storage_pool(name)? else {
        return class_is(format!("there is no storage pool {name:?}: see {client} storage list"));
    };
    let Some((used, total)) = pool.space else { return Ok(None) };
    let free = total.saturating_sub(used);
    Ok((free < AS_GOOD_AS_FULL).then(|| {
        let text = format!(
            "storage pool {name:?} has {} MiB left of {} MiB: remove what is not needed ({client} storage info {name}), or \
             enlarge it",
            free >> 20,
            total >> 20
        );
        Cause { fault: Fault::Storage, text }
    }))
}
