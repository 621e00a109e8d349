//! Images, profiles, networks, storage pools, projects and cluster members.

use serde::Deserialize;
use serde_json::json;

use super::api::Lxd;
use super::types::{Error, ErrorKind, Operation};
use super::wait::{Patience, Signs};
use super::wire::{null_as_default, succeeded};
use crate::http1::{path_segment, query_value};
use crate::model::{ConfigMap, Devices, InstanceType};
use crate::text::{self, Line};

/// An image of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// In full.
    #[serde(deserialize_with = "text::line")]
    pub fingerprint: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type", default, deserialize_with = "text::line")]
    pub kind: String,
    /// LXD's word: `x86_64`, `aarch64`, …
    #[serde(default, deserialize_with = "text::line")]
    pub architecture: String,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// `os`, `release`, `description`, …
    #[serde(default, deserialize_with = "null_as_default")]
    pub properties: ConfigMap,
    #[serde(default, deserialize_with = "null_as_default")]
    aliases: Vec<AliasJson>,
    #[serde(default)]
    update_source: Option<UpdateSourceJson>,
}

impl Image {
    /// True if it was fetched under that alias from that image server, where LXD looks for a newer one.
    pub fn comes_from(&self, server: &str, alias: &str) -> bool {
        self.update_source.as_ref().is_some_and(|source| {
            source.alias == alias && source.server.trim_end_matches('/') == server.trim_end_matches('/')
        })
    }

    /// Its aliases.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(|alias| alias.name.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct AliasJson {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct UpdateSourceJson {
    #[serde(default)]
    server: String,
    #[serde(default)]
    alias: String,
}

/// An image of an image server.
#[derive(Clone, Copy, Debug)]
pub struct RemoteImage<'a> {
    /// Its base URL.
    pub server: &'a str,
    /// `simplestreams` or `lxd`.
    pub protocol: &'a str,
    /// The image's name there.
    pub alias: &'a str,
    /// An alias may stand for an image of each type.
    pub kind: InstanceType,
}

/// Settings that instances share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Profile {
    /// Instance config.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ConfigMap,
    /// By name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub devices: Devices,
}

/// A network of the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// True where LXD made it.
    #[serde(default)]
    pub managed: bool,
    /// `bridge`, `ovn`, `physical`, …
    #[serde(rename = "type", default, deserialize_with = "text::line")]
    pub kind: String,
    /// `ipv4.address`, `ipv4.nat`, …
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ConfigMap,
}

/// A storage pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePool {
    /// `btrfs`, `zfs`, `dir`, …
    pub driver: String,
    /// `Created`, or another state.
    pub status: String,
    /// Used and total bytes, if the driver can tell.
    pub space: Option<(u64, u64)>,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Project {
    /// Unique.
    #[serde(deserialize_with = "text::line")]
    pub name: String,
    /// `features.*`, `limits.*`, `restricted`, …
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ConfigMap,
}

#[derive(Deserialize)]
struct AliasEntryJson {
    target: Line,
}

#[derive(Deserialize)]
struct PoolJson {
    #[serde(default)]
    driver: Line,
    #[serde(default)]
    status: Line,
}

#[derive(Deserialize)]
struct PoolResourcesJson {
    space: SpaceJson,
}

#[derive(Deserialize)]
struct SpaceJson {
    #[serde(default)]
    used: u64,
    #[serde(default)]
    total: u64,
}

#[derive(Deserialize)]
struct MemberJson {
    server_name: Line,
}

impl Lxd {
    /// The fingerprint behind an alias.
    pub fn image_alias(&self, project: &str, alias: &str) -> Result<Option<String>, Error> {
        let path = format!("/1.0/images/aliases/{}?project={}", path_segment(alias), query_value(project));
        let entry: Option<AliasEntryJson> = self.find(&format!("look up image alias {alias}"), path)?;
        Ok(entry.map(|entry| entry.target.into()))
    }

    /// An image by its fingerprint or a unique start of it.
    pub fn image(&self, project: &str, fingerprint: &str) -> Result<Option<Image>, Error> {
        let path = format!("/1.0/images/{}?project={}", path_segment(fingerprint), query_value(project));
        self.find(&format!("look at image {fingerprint}"), path)
    }

    /// Fetches an image from an image server and returns its fingerprint. LXD keeps it up to date.
    pub fn fetch_image(
        &self,
        project: &str,
        image: &RemoteImage<'_>,
        patience: &Patience<'_>,
    ) -> Result<String, Error> {
        let RemoteImage { server, protocol, alias, kind } = image;
        let tried = format!("fetch image {alias} from {server}");
        // Without the type LXD fetches the container's image of an alias for both.
        let source = json!({"type": "image", "mode": "pull", "server": server, "protocol": protocol, "alias": alias,
            "image_type": kind.as_str()});
        let body = json!({"source": source, "auto_update": true});
        let path = format!("/1.0/images?project={}", query_value(project));
        self.made_image(&tried, path, &body, patience)
    }

    /// Publishes a stopped instance as an image and returns its fingerprint. If `alias` is taken, the operation fails and leaves
    /// the image without an alias. Only images that LXD fetched expire or are updated.
    pub fn publish(
        &self,
        project: &str,
        instance: &str,
        alias: &str,
        properties: &ConfigMap,
        compression: &str,
        patience: &Patience<'_>,
    ) -> Result<String, Error> {
        let source = json!({"type": "instance", "name": instance});
        let body = json!({"source": source, "properties": properties, "aliases": [{"name": alias}],
            "compression_algorithm": compression, "public": false});
        let path = format!("/1.0/images?project={}", query_value(project));
        self.made_image(&format!("publish instance {instance}"), path, &body, patience)
    }

    fn made_image(
        &self,
        tried: &str,
        path: String,
        body: &serde_json::Value,
        patience: &Patience<'_>,
    ) -> Result<String, Error> {
        let operation = self.start_operation(tried, "POST", path, Some(body))?;
        let ended = self.end_of(&operation, patience, Signs::Image)?;
        succeeded(tried, &ended)?;
        match ended.metadata.fingerprint {
            fingerprint if fingerprint.is_empty() => {
                Err(Error::new(tried, ErrorKind::Malformed, "the operation ended without the image's fingerprint"))
            }
            fingerprint => Ok(fingerprint.into()),
        }
    }

    /// Deletes an image, by its whole fingerprint. Instances that were made of it stay.
    pub fn delete_image(&self, project: &str, fingerprint: &str) -> Result<Operation, Error> {
        let path = format!("/1.0/images/{}?project={}", path_segment(fingerprint), query_value(project));
        self.start_operation(&format!("delete image {fingerprint}"), "DELETE", path, None)
    }

    /// All images of a project.
    pub fn images(&self, project: &str) -> Result<Vec<Image>, Error> {
        let path = format!("/1.0/images?recursion=1&project={}", query_value(project));
        self.get(&format!("list the images of project {project}"), path)
    }

    /// A profile; `None` where there is none.
    pub fn profile(&self, project: &str, name: &str) -> Result<Option<Profile>, Error> {
        let path = format!("/1.0/profiles/{}?project={}", path_segment(name), query_value(project));
        self.find(&format!("look at profile {name}"), path)
    }

    /// A network, LXD's own or the host's; `None` where there is none.
    pub fn network(&self, project: &str, name: &str) -> Result<Option<Network>, Error> {
        let path = format!("/1.0/networks/{}?project={}", path_segment(name), query_value(project));
        self.find(&format!("look at network {name}"), path)
    }

    /// A storage pool and its space; `None` where there is none.
    pub fn storage_pool(&self, name: &str) -> Result<Option<StoragePool>, Error> {
        let path = format!("/1.0/storage-pools/{}", path_segment(name));
        let tried = format!("look at storage pool {name}");
        let Some(pool) = self.find::<PoolJson>(&tried, path.clone())? else { return Ok(None) };
        // Optional: some drivers and permissions do not give it.
        let resources: Result<PoolResourcesJson, Error> = self.get(&tried, format!("{path}/resources"));
        let space = resources.ok().map(|r| (r.space.used, r.space.total)).filter(|(_, total)| *total > 0);
        Ok(Some(StoragePool { driver: pool.driver.into(), status: pool.status.into(), space }))
    }

    /// All projects that we may see.
    pub fn projects(&self) -> Result<Vec<Project>, Error> {
        self.get("list the projects", "/1.0/projects?recursion=1".to_owned())
    }

    /// Names of the cluster's members. An error on a server that is not clustered.
    pub fn cluster_members(&self) -> Result<Vec<String>, Error> {
        let members: Vec<MemberJson> =
            self.get("list the cluster's members", "/1.0/cluster/members?recursion=1".to_owned())?;
        Ok(members.into_iter().map(|member| member.server_name.into()).collect())
    }
}
