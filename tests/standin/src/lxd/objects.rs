//! What does not change by itself: the server, images, profiles, networks, pools, projects.

use serde_json::{Value, json};

use super::answer::{Answer, Ask};
use super::state::{ImageEntry, NetworkEntry, ProfileEntry, State};

/// `GET /1.0`
pub(super) fn server(state: &State) -> Answer {
    let mut extensions = vec![
        "etag",
        "patch",
        "container_exec_recording",
        "directory_manipulation",
        "projects",
        "instances",
        "virtual-machines",
        "api_filtering",
        "clustering_evacuation",
    ];
    if state.starts_at_creation {
        extensions.push("instance_create_start");
    }
    Answer::sync(json!({
        "api_extensions": extensions,
        "api_status": "stable", "api_version": "1.0", "auth": "trusted", "public": false, "config": {},
        "environment": {"server": state.product, "server_version": state.version, "server_clustered": state.clustered,
            "driver": if state.virtual_machines { "lxc | qemu" } else { "lxc" }, "server_name": "standin", "architectures": ["x86_64", "i686"], "storage": "btrfs"},
    }))
}

/// The listings and the single objects.
pub(super) fn get(state: &State, ask: &Ask, path: &[&str]) -> Result<Answer, Answer> {
    let found = |found: Option<Value>, missing: &str| found.ok_or_else(|| Answer::error(404, missing));
    let whole = ask.query("recursion").is_some_and(|r| r != "0");
    let metadata = match path {
        ["images"] => list(state.images.iter().map(|i| (i.fingerprint.as_str(), image(i))), "images", whole),
        ["images", "aliases", alias] => {
            let image = state.images.iter().find(|image| image.alias == *alias && !alias.is_empty());
            let entry = |image: &ImageEntry| json!({"name": image.alias, "target": image.fingerprint, "type": image.kind.as_str(), "description": ""});
            found(image.map(entry), "Image alias not found")?
        }
        ["images", start] => {
            let found_image = state.images.iter().find(|image| image.fingerprint.starts_with(start));
            found(found_image.map(image), "Image not found")?
        }
        ["profiles", name] => {
            let missing = "Fetch profile: Profile not found";
            found(state.profiles.get(*name).map(|p| profile(name, p)), missing)?
        }
        ["profiles"] => list(state.profiles.iter().map(|(n, p)| (n.as_str(), profile(n, p))), "profiles", whole),
        ["networks", name] => found(state.networks.get(*name).map(|n| network(name, n)), "Network not found")?,
        ["networks"] => list(state.networks.iter().map(|(n, it)| (n.as_str(), network(n, it))), "networks", whole),
        ["storage-pools", name] => {
            let pool = json!({"name": name, "driver": state.pools.get(*name), "status": "Created", "config": {}, "description": "",
                "used_by": [], "locations": ["none"]});
            found(state.pools.contains_key(*name).then_some(pool), "Storage pool not found")?
        }
        ["storage-pools", name, "resources"] => {
            let total = 20_u64 << 30;
            let used = if state.pool_full { total } else { total / 50 };
            let resources = json!({"space": {"used": used, "total": total}, "inodes": {"used": 0, "total": 0}});
            found(state.pools.contains_key(*name).then_some(resources), "Storage pool not found")?
        }
        ["projects"] => list(state.projects.iter().map(|name| (name.as_str(), project(name))), "projects", whole),
        ["projects", name] => found(state.projects.get(*name).map(|n| project(n)), "Project not found")?,
        ["cluster", "members"] if state.clustered => list(
            [("standin", json!({"server_name": "standin", "status": "Online"}))].into_iter(),
            "cluster/members",
            whole,
        ),
        ["cluster", "members"] => return Err(Answer::error(500, "Server is not clustered")),
        _ => return Err(Answer::error(404, "not found")),
    };
    Ok(Answer::sync(metadata))
}

fn list<'a>(objects: impl Iterator<Item = (&'a str, Value)>, room: &str, whole: bool) -> Value {
    let url = |name: &str| Value::String(format!("/1.0/{room}/{name}"));
    objects.map(|(name, object)| if whole { object } else { url(name) }).collect()
}

fn image(image: &ImageEntry) -> Value {
    let names: Vec<&str> = [image.alias.as_str()].into_iter().filter(|name| !name.is_empty()).collect();
    let aliases: Vec<Value> = names.iter().map(|name| json!({"name": name, "description": ""})).collect();
    let source = image.fetched_from.as_ref();
    let source = source.map(|(server, alias)| json!({"server": server, "alias": alias, "protocol": "simplestreams"}));
    json!({"fingerprint": image.fingerprint, "type": image.kind.as_str(), "architecture": image.architecture, "update_source": source,
        "properties": image.properties, "aliases": aliases, "size": image.size,
        "public": false, "cached": false, "auto_update": false, "profiles": ["default"],
        "uploaded_at": "2026-01-01T00:00:00Z", "created_at": "2026-01-01T00:00:00Z"})
}

fn profile(name: &str, profile: &ProfileEntry) -> Value {
    json!({"name": name, "config": profile.config, "devices": profile.devices, "description": "", "used_by": []})
}

fn network(name: &str, network: &NetworkEntry) -> Value {
    json!({"name": name, "type": network.kind, "managed": network.managed, "config": network.config,
        "description": "", "used_by": [], "status": if network.managed { "Created" } else { "" }, "locations": null})
}

fn project(name: &str) -> Value {
    json!({"name": name, "description": "", "used_by": [], "config": {"features.images": "false",
        "features.networks": "false", "features.profiles": "false", "features.storage.volumes": "false"}})
}
