//! The credentials for GitHub: personal access tokens and GitHub Apps.

use std::fmt;

use rustls_pki_types::pem::{self, SectionKind};

use super::read::{Item, Section};
use super::{file, secret};
use crate::model::Secret;

/// The name of the credential that is given at the top of the file.
const MAIN: &str = "default";
/// A file that holds a key longer than this holds something else.
const LONGEST_KEY: u64 = 64 * 1024;

/// One of GitHub's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// As targets name it.
    pub name: String,
    pub kind: CredentialKind,
}

/// The kind of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A personal access token, classic or fine-grained.
    Token(Secret),
    /// A GitHub App, which gets a token of its own for each account that it is installed on.
    App { id: u64, key: AppKey },
}

/// An App's private RSA key. It prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct AppKey {
    /// DER.
    der: Vec<u8>,
    pkcs8: bool,
}

impl AppKey {
    /// The first key of a PEM text. `Err`: the fault and the fix.
    ///
    /// # Errors
    /// Where there is none, or one of another kind.
    pub fn from_pem(text: &[u8]) -> Result<AppKey, (String, &'static str)> {
        let download =
            "name the .pem file that GitHub gave you: the App's settings, Private keys, Generate a private key";
        let section = pem::from_buf(&mut &*text);
        let key = match section {
            Ok(Some((SectionKind::RsaPrivateKey, der))) => AppKey { der, pkcs8: false },
            Ok(Some((SectionKind::PrivateKey, der))) => AppKey { der, pkcs8: true },
            Ok(Some((SectionKind::EcPrivateKey, _))) => {
                return Err(("is an elliptic curve key; GitHub Apps have RSA keys".to_owned(), download));
            }
            Ok(Some((SectionKind::Certificate, _))) => {
                return Err(("is a certificate, not a key".to_owned(), download));
            }
            Ok(Some((SectionKind::PublicKey, _))) => {
                return Err(("is a public key, not the private one".to_owned(), download));
            }
            Ok(Some(_)) => return Err(("is not a private key".to_owned(), download)),
            Ok(None) | Err(_) => return Err(("is not a key in PEM".to_owned(), download)),
        };
        match key.pair() {
            Ok(_) => Ok(key),
            Err(why) => Err((format!("is not a usable RSA key ({why})"), download)),
        }
    }

    /// The key, ready to sign.
    ///
    /// # Errors
    /// Never, as the key was tried when it was read.
    pub fn pair(&self) -> Result<ring::rsa::KeyPair, String> {
        let pair = match self.pkcs8 {
            true => ring::rsa::KeyPair::from_pkcs8(&self.der),
            false => ring::rsa::KeyPair::from_der(&self.der),
        };
        pair.map_err(|why| why.to_string())
    }
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// All credentials: the one at the top of the file first, then those of the list. `None` where any is wrong.
pub(super) fn read(top: &Section<'_>) -> Option<Vec<Credential>> {
    let list = top.get("credentials");
    let main = ["pat", "pat_file", "github_app"].iter().any(|key| top.find(key).is_some());
    let mut found = Vec::new();
    if main || list.is_none() {
        found.push(kind(top).map(|kind| Credential { name: MAIN.to_owned(), kind }));
    }
    let fix = "write a list: `- {name: work, pat_file: FILE}`";
    let items = list.as_ref().map_or(Some(Vec::new()), |item| item.list("a list of credentials"))?;
    if let (Some(list), true) = (&list, items.is_empty()) {
        return list.refuse("is empty", fix);
    }
    let mut names: Vec<String> = if main { vec![MAIN.to_owned()] } else { Vec::new() };
    for item in items {
        let keys = ["name", "pat", "pat_file", "github_app"];
        let Some(one) = Section::new(&item, &keys) else {
            found.push(None);
            continue;
        };
        let name = one.require("name", "give it a name, which targets use: `credential: NAME`");
        let name = name.and_then(|item| Some((item.scalar()?, item)));
        if let Some((name, item)) = &name {
            if names.contains(name) {
                item.error(format!("{name:?} is the name of another credential"), "give each its own");
            }
            names.push(name.clone());
        }
        let kind = kind(&one);
        found.push(name.zip(kind).map(|((name, _), kind)| Credential { name, kind }));
    }
    found.into_iter().collect()
}

/// The token or App in `section`.
fn kind(section: &Section<'_>) -> Option<CredentialKind> {
    let Some(item) = section.get("github_app") else {
        return secret::read(&secret::PAT, section, true).map(CredentialKind::Token);
    };
    if let Some(pat) = ["pat", "pat_file"].iter().find_map(|key| section.get(key)) {
        return pat.refuse("given beside github_app", "keep one of the two; credentials can hold several");
    }
    let app = Section::new(&item, &["app_id", "private_key_file"])?;
    let id = app.require("app_id", "write the App's number, App ID on its settings page");
    let id = id.and_then(|id| id.number(1, u32::MAX));
    let key = app.require("private_key_file", "write the name of the App's .pem file");
    let key = key.and_then(|key| private_key(&key));
    Some(CredentialKind::App { id: id?.into(), key: key? })
}

fn private_key(item: &Item<'_>) -> Option<AppKey> {
    let path = item.file("the name of the App's .pem file")?;
    let shown = path.display();
    let text = match file::read(&path, LONGEST_KEY) {
        Ok(text) => text,
        Err(error) => {
            secret::unreadable(item, &path, &error);
            return None;
        }
    };
    if text.trim_ascii() == secret::LEFT_OUT.as_bytes() {
        return item.refuse(
            format!("systemd credential {shown} is empty: /etc/lxdrunner lacks the file"),
            secret::LEFT_OUT_FIX,
        );
    }
    match AppKey::from_pem(&text) {
        Ok(key) => {
            item.warn_of_readers(&path, &shown);
            Some(key)
        }
        Err((what, fix)) => item.refuse(format!("{shown} {what}"), fix),
    }
}
