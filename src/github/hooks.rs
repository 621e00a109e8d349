//! Webhooks of organisations and repositories, and what became of their deliveries. (Those of enterprises are made by hand:
//! GitHub's API has no calls for them.)

use serde::Deserialize;
use serde_json::{Value, json};

use super::address::scope_path;
use super::api::GitHub;
use super::budget::Purpose;
use super::error::{Error, ErrorKind};
use super::wire::{Call, decode};
use crate::model::{Scope, Secret, Timestamp};
use crate::text::Line;

/// Deliveries on one page, the most that there may be.
const PAGE: usize = 100;

/// A hook as GitHub has it. Its secret is never told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub id: u64,
    pub url: String,
    /// `json`, or `form`.
    pub content_type: String,
    /// True where any certificate is taken.
    pub insecure: bool,
    pub events: Vec<String>,
    pub active: bool,
}

/// A hook as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookWanted {
    pub url: String,
    pub secret: Secret,
    /// Take any certificate: ours is signed by ourselves.
    pub insecure: bool,
}

/// What a hook of ours sends.
pub const HOOK_EVENTS: &[&str] = &["workflow_job"];

/// One attempt to deliver something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub id: u64,
    /// The same for all attempts.
    pub guid: String,
    pub at: Option<Timestamp>,
    /// True for one that was asked for.
    pub redelivery: bool,
    /// `OK`, or what went wrong, in GitHub's words.
    pub status: String,
    /// The status of the receiver's answer; 0 where none came.
    pub code: u16,
    pub event: String,
}

impl Delivery {
    /// False while GitHub still tries: then it says neither a word nor a status.
    pub fn is_over(&self) -> bool {
        !self.status.is_empty() || self.code != 0
    }

    /// True where the receiver took it.
    pub fn arrived(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

#[derive(Deserialize)]
struct HookWire {
    id: u64,
    #[serde(default)]
    active: bool,
    #[serde(default)]
    events: Vec<Line>,
    #[serde(default)]
    config: ConfigWire,
}

#[derive(Default, Deserialize)]
struct ConfigWire {
    #[serde(default)]
    url: Line,
    #[serde(default)]
    content_type: Line,
    /// A text, or a number with older servers.
    #[serde(default)]
    insecure_ssl: Value,
}

impl From<HookWire> for Hook {
    fn from(wire: HookWire) -> Hook {
        let insecure = wire.config.insecure_ssl == "1" || wire.config.insecure_ssl == 1;
        let HookWire { id, active, events, config } = wire;
        let events = events.into_iter().map(String::from).collect();
        Hook { id, url: config.url.into(), content_type: config.content_type.into(), insecure, events, active }
    }
}

#[derive(Deserialize)]
struct DeliveryWire {
    id: u64,
    guid: Line,
    #[serde(default)]
    delivered_at: Option<String>,
    #[serde(default)]
    redelivery: bool,
    #[serde(default)]
    status: String,
    #[serde(default)]
    status_code: i64,
    event: Line,
}

impl From<DeliveryWire> for Delivery {
    fn from(wire: DeliveryWire) -> Delivery {
        Delivery {
            id: wire.id,
            guid: wire.guid.into(),
            at: wire.delivered_at.as_deref().and_then(Timestamp::parse),
            redelivery: wire.redelivery,
            status: super::error::one_line(&wire.status),
            code: u16::try_from(wire.status_code).unwrap_or(0),
            event: wire.event.into(),
        }
    }
}

impl HookWanted {
    fn body(&self) -> Value {
        json!({
            "config": {
                "url": self.url, "content_type": "json", "secret": self.secret.expose(),
                "insecure_ssl": if self.insecure { "1" } else { "0" }
            },
            "events": HOOK_EVENTS, "active": true
        })
    }
}

/// Calls fail as every call does; with [`ErrorKind::NotFound`] also where the credential may not see hooks.
#[allow(clippy::missing_errors_doc, reason = "said above for all of them")]
impl GitHub {
    /// All hooks of a scope.
    pub fn hooks(&self, scope: &Scope) -> Result<Vec<Hook>, Error> {
        let tried = format!("list the webhooks of {scope}");
        let mut hooks = Vec::new();
        let take = |page: Vec<HookWire>| hooks.extend(page.into_iter().map(Hook::from));
        let path = format!("{}?per_page=100", hooks_path(scope, &tried)?);
        self.http.pages(Call::get(&tried, Purpose::Ask), &path, take).map_err(with_fix)?;
        Ok(hooks)
    }

    /// Makes a hook; GitHub pings it at once.
    pub fn create_hook(&self, scope: &Scope, wanted: &HookWanted) -> Result<Hook, Error> {
        let tried = format!("make a webhook of {scope}");
        let mut body = wanted.body();
        if let Value::Object(fields) = &mut body {
            fields.insert("name".to_owned(), "web".into());
        }
        let call = Call::new(&tried, Purpose::Ask, "POST").body(&body);
        let answer = self.http.call(call, &hooks_path(scope, &tried)?).map_err(with_fix)?;
        Ok(decode::<HookWire>(&tried, &answer)?.into())
    }

    /// Makes a hook what it shall be, its secret included.
    pub fn update_hook(&self, scope: &Scope, id: u64, wanted: &HookWanted) -> Result<(), Error> {
        let tried = format!("set the webhook {id} of {scope} right");
        let body = wanted.body();
        let call = Call::new(&tried, Purpose::Ask, "PATCH").body(&body);
        self.http.call(call, &format!("{}/{id}", hooks_path(scope, &tried)?)).map(drop).map_err(with_fix)
    }

    /// Removes a hook; one that is gone is fine.
    pub fn delete_hook(&self, scope: &Scope, id: u64) -> Result<(), Error> {
        let tried = format!("remove the webhook {id} of {scope}");
        let path = format!("{}/{id}", hooks_path(scope, &tried)?);
        match self.http.call(Call::new(&tried, Purpose::Ask, "DELETE"), &path) {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Lets GitHub send a ping.
    pub fn ping_hook(&self, scope: &Scope, id: u64) -> Result<(), Error> {
        let tried = format!("ping the webhook {id} of {scope}");
        let path = format!("{}/{id}/pings", hooks_path(scope, &tried)?);
        self.http.call(Call::new(&tried, Purpose::Ask, "POST"), &path).map(drop)
    }

    /// A hook's deliveries whose outcome is known, newest first, page by page for as long as `more` says so of what there is so far.
    pub fn deliveries(
        &self,
        scope: &Scope,
        hook: u64,
        purpose: Purpose,
        more: impl Fn(&[Delivery]) -> bool,
    ) -> Result<Vec<Delivery>, Error> {
        let tried = format!("list the deliveries of the webhook {hook} of {scope}");
        let path = format!("{}/{hook}/deliveries?per_page={PAGE}", hooks_path(scope, &tried)?);
        let mut all: Vec<Delivery> = Vec::new();
        let take = |page: Vec<DeliveryWire>| {
            all.extend(page.into_iter().map(Delivery::from).filter(Delivery::is_over));
            more(&all)
        };
        self.http.pages_while(Call::get(&tried, purpose), &path, take)?;
        Ok(all)
    }

    /// Asks for a delivery to be made again, under the same id.
    pub fn redeliver(&self, scope: &Scope, hook: u64, delivery: u64) -> Result<(), Error> {
        let tried = format!("ask for delivery {delivery} of the webhook {hook} of {scope} again");
        let path = format!("{}/{hook}/deliveries/{delivery}/attempts", hooks_path(scope, &tried)?);
        self.http.call(Call::new(&tried, Purpose::Ask, "POST"), &path).map(drop)
    }
}

fn hooks_path(scope: &Scope, tried: &str) -> Result<String, Error> {
    match scope {
        Scope::Enterprise(slug) => {
            let message = "GitHub's API has no webhooks of enterprises";
            let fix = format!(
                "make it by hand, Enterprise settings of {slug} → Hooks, or name its organisations as targets, too"
            );
            Err(Error::new(tried, ErrorKind::Malformed, message).with_fix(fix))
        }
        other => Ok(format!("{}/hooks", scope_path(other))),
    }
}

fn with_fix(error: Error) -> Error {
    match error.kind {
        ErrorKind::NotFound | ErrorKind::Forbidden => error.with_fix(
            "the credential may not administer webhooks there: a classic token needs admin:org_hook, for a repository \
             repo; a fine-grained one or a GitHub App Webhooks, to read and write",
        ),
        _ => error,
    }
}
