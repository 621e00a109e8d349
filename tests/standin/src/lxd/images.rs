//! Images that are fetched or made of instances, and that go.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{Answer, Ask};
use super::operations;
use super::server::Shared;
use super::state::{Download, ImageEntry, Power, State, hex, instance_not_found};
use lxdrunner::model::ConfigMap;

/// Ways to pack an image that the stand-in has.
const COMPRESSIONS: [&str; 4] = ["", "none", "gzip", "zstd"];

pub(super) fn make(shared: &Arc<Shared>, ask: &Ask) -> Result<Answer, Answer> {
    let body = ask.json()?;
    match body.pointer("/source/type").and_then(Value::as_str) {
        Some("image") => {
            let (id, json) = operations::begin(&mut shared.lock(), "Downloading image", ask.project(), "");
            operations::spawn(shared, &id, move |shared, id| Some(fetched(&mut download(shared, id, &body), &body)));
            Ok(Answer::operation(json))
        }
        _ => publish(shared, ask, &body),
    }
}

/// Downloads it, where nobody else does, and tells how far that is; or waits for who does, and tells nothing.
fn download<'s>(shared: &'s Shared, id: &str, body: &Value) -> MutexGuard<'s, State> {
    let alias = body.pointer("/source/alias").and_then(Value::as_str).unwrap_or_default();
    let mut state = shared.lock();
    let waits = state.downloading.contains(alias);
    if !waits && state.downloads != Download::Quick {
        let downloads = state.downloads;
        state.downloading.insert(alias.to_owned());
        state.operations.entry(id.to_owned()).and_modify(|operation| operation.download = Some(downloads));
    }
    let goes_on = |state: &State| match state.operations.get(id).and_then(|operation| operation.download) {
        Some(download) => download != Download::Slow(0),
        None => waits && state.downloading.contains(alias),
    };
    while goes_on(&state) && !shared.is_stopping() {
        state = shared.wait(state, Duration::from_secs(1));
    }
    if !waits {
        state.downloading.remove(alias);
    }
    drop(state);
    shared.changed.notify_all();
    shared.lock()
}

/// Where the type is not said, an alias stands for its container image.
fn fetched(state: &mut State, body: &Value) -> operations::Outcome {
    let text =
        |key: &str| body.pointer(&format!("/source/{key}")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (server, alias, kind) = (text("server"), text("alias"), text("image_type"));
    let kind = if kind.is_empty() { "container" } else { &kind };
    let Some(image) = state.served.iter().find(|image| image.alias == alias && image.kind.as_str() == kind) else {
        return Err(
            "Failed getting remote image info: Failed getting image: The requested image couldn't be found".to_owned()
        );
    };
    let (fingerprint, size) = (image.fingerprint.clone(), image.size);
    let image = ImageEntry { alias: String::new(), fetched_from: Some((server, alias)), ..image.clone() };
    state.images.retain(|other| other.fingerprint != fingerprint);
    state.images.push(image);
    Ok(json!({"fingerprint": fingerprint, "size": size.to_string()}))
}

fn publish(shared: &Arc<Shared>, ask: &Ask, body: &Value) -> Result<Answer, Answer> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = text(body.get("source").and_then(|source| source.get("name")));
    let alias = text(body.pointer("/aliases/0/name"));
    let compression = text(body.get("compression_algorithm"));
    let given = body.get("properties").and_then(|given| serde_json::from_value::<ConfigMap>(given.clone()).ok());
    if !COMPRESSIONS.contains(&compression.as_str()) {
        return Err(Answer::error(400, &format!("Invalid compression algorithm \"{compression}\"")));
    }
    if shared.lock().instance(ask.project(), &name).is_none() {
        return Err(instance_not_found());
    }
    let (project, instance) = (ask.project().to_owned(), name.clone());
    Ok(operations::run(shared, "Downloading image", ask.project(), &name, move |shared| {
        published(&mut shared.lock(), &project, &instance, &alias, given)
    }))
}

fn published(
    state: &mut State,
    project: &str,
    name: &str,
    alias: &str,
    given: Option<ConfigMap>,
) -> operations::Outcome {
    let number = state.number();
    let Some(instance) = state.instance(project, name) else { return Err("Instance not found".to_owned()) };
    if instance.power != Power::Stopped {
        return Err("Cannot export a running instance as an image".to_owned());
    }
    // What is not given is that of the image that it was made of.
    let of_image = |(key, value): (&String, &String)| Some((key.strip_prefix("image.")?.to_owned(), value.clone()));
    let properties = given.unwrap_or_else(|| instance.config.iter().filter_map(of_image).collect());
    let fingerprint = hex(&Sha256::digest(format!("{name} {number}").as_bytes()));
    let (kind, architecture, files) = (instance.kind, instance.architecture.clone(), instance.files.clone());
    let size = 250_000_000;
    // The name is looked at last, and the image stays without one where another has it.
    let taken = !alias.is_empty() && state.images.iter().any(|image| image.alias == alias);
    let (own, name) = (fingerprint.clone(), if taken { "" } else { alias }.to_owned());
    let fetched_from = None;
    state.images.push(ImageEntry { alias: name, fingerprint: own, kind, architecture, properties, size, fetched_from });
    state.published.insert(fingerprint.clone(), files);
    if taken {
        return Err(format!("Alias already exists: {alias}"));
    }
    Ok(json!({"fingerprint": fingerprint, "size": size.to_string()}))
}

pub(super) fn delete(shared: &Arc<Shared>, ask: &Ask, fingerprint: &str) -> Result<Answer, Answer> {
    let wanted = fingerprint.to_owned();
    let is = move |image: &ImageEntry| image.fingerprint == wanted;
    if !shared.lock().images.iter().any(&is) {
        return Err(Answer::error(404, "Image not found"));
    }
    Ok(operations::run(shared, "Deleting image", ask.project(), fingerprint, move |shared| {
        shared.lock().images.retain(|image| !is(image));
        Ok(Value::Null)
    }))
}
