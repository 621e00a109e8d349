//! Paged listings: each answer names the next page, which must be at the same GitHub, and the walk must end.

use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, header};

use super::budget::{Budget, Purpose};
use super::error::{Error, ErrorKind};
use super::http::Http;
use super::keyring::Whose;
use super::listing::{Listing, Page};
use super::wire::{Answer, Call, Wire, decode};
use crate::model::Secret;

/// The most pages of one listing that are read: with 100 entries each, ten times as many as GitHub lists of runs.
pub const MAX_PAGES: usize = 100;

impl Http {
    /// Reads all pages of a listing and passes the JSON of each to `take`.
    pub fn pages<T: DeserializeOwned>(&self, call: Call<'_>, path: &str, take: impl FnMut(T)) -> Result<(), Error> {
        self.pages_of(&Whose::by_path(path), call, path, take)
    }

    /// The same with the credential of `whose`.
    pub fn pages_of<T: DeserializeOwned>(
        &self,
        whose: &Whose,
        call: Call<'_>,
        path: &str,
        take: impl FnMut(T),
    ) -> Result<(), Error> {
        self.wire.walk(call.tried, path, all(take), |url| self.call_url(call, whose, url))
    }

    /// The same, until `take` returns false.
    pub fn pages_while<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        path: &str,
        take: impl FnMut(T) -> bool,
    ) -> Result<(), Error> {
        let whose = Whose::by_path(path);
        self.wire.walk(call.tried, path, take, |url| self.call_url(call, &whose, url))
    }

    /// Updates `known`, asking only for changed pages, and at most for the first `most`; true if any changed. After an error
    /// `known` has the pages that were read, and the next successful call reports their changes.
    pub fn pages_if_changed<W: DeserializeOwned, T>(
        &self,
        call: Call<'_>,
        path: &str,
        known: &mut Listing<T>,
        items: impl Fn(W) -> Vec<T>,
        most: usize,
    ) -> Result<bool, Error> {
        let mut walk = Walk::from(format!("{}/{path}", self.wire.base()));
        // The addresses of later pages contain ids instead of names.
        let whose = Whose::by_path(path);
        let (mut number, tried) = (0, call.tried);
        loop {
            let etag = known.page(number, &walk.url).and_then(|page| page.etag.clone());
            let answer = self.call_url(Call { etag: etag.as_deref(), ..call }, &whose, &walk.url)?;
            if answer.status != 304 {
                let next = self.wire.next_page(tried, &answer.headers)?;
                let etag = answer.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
                known.put(number, Page { url: walk.url.clone(), etag, next, items: items(decode(tried, &answer)?) });
            }
            let next = known.page(number, &walk.url).and_then(|page| page.next.clone());
            number += 1;
            match next {
                // A walk beyond MAX_PAGES fails in `on`.
                Some(next) if number < most || most == MAX_PAGES => walk.on(tried, next)?,
                _ => return Ok(known.end(number)),
            }
        }
    }
}

impl Wire {
    /// Reads all pages of a listing with this token and passes the JSON of each to `take`.
    pub fn pages<T: DeserializeOwned>(
        &self,
        token: &Secret,
        budget: &Budget,
        tried: &str,
        path: &str,
        take: impl FnMut(T),
    ) -> Result<(), Error> {
        let call = Call::get(tried, Purpose::List);
        self.walk(tried, path, all(take), |url| self.call_url(call, url, token, budget))
    }

    fn walk<T: DeserializeOwned>(
        &self,
        tried: &str,
        path: &str,
        mut take: impl FnMut(T) -> bool,
        call: impl Fn(&str) -> Result<Answer, Error>,
    ) -> Result<(), Error> {
        let mut walk = Walk::from(format!("{}/{path}", self.base()));
        loop {
            let answer = call(&walk.url)?;
            let more = take(decode(tried, &answer)?);
            match self.next_page(tried, &answer.headers)? {
                Some(next) if more => walk.on(tried, next)?,
                _ => return Ok(()),
            }
        }
    }

    /// The whole address of the next page, if there is one.
    fn next_page(&self, tried: &str, headers: &HeaderMap) -> Result<Option<String>, Error> {
        let links = headers.get_all(header::LINK);
        let Some(next) = links.iter().filter_map(|link| link.to_str().ok()).find_map(next_page) else {
            return Ok(None);
        };
        let away = || Error::new(tried, ErrorKind::Malformed, "the link to the next page leads to another host");
        self.same_origin(next).map(Some).ok_or_else(away)
    }
}

/// Takes every page.
fn all<T>(mut take: impl FnMut(T)) -> impl FnMut(T) -> bool {
    move |page| {
        take(page);
        true
    }
}

/// A walk along a listing's pages that must end.
struct Walk {
    url: String,
    seen: Vec<String>,
}

impl Walk {
    fn from(url: String) -> Walk {
        Walk { url, seen: Vec::new() }
    }

    fn on(&mut self, tried: &str, next: String) -> Result<(), Error> {
        self.seen.push(std::mem::replace(&mut self.url, next));
        if self.seen.contains(&self.url) {
            return Err(Error::new(tried, ErrorKind::Malformed, "the link to the next page leads back"));
        }
        if self.seen.len() >= MAX_PAGES {
            return Err(Error::new(tried, ErrorKind::Malformed, format!("more than {MAX_PAGES} pages")));
        }
        Ok(())
    }
}

/// The address of `rel="next"` in a Link header.
fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|part| {
        let (address, attributes) = part.trim().strip_prefix('<')?.split_once('>')?;
        let next = |attribute: &str| matches!(attribute.trim(), "rel=\"next\"" | "rel=next");
        attributes.split(';').any(next).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_where_there_is_one() {
        let check = |link: &str, next: Option<&str>| assert_eq!(next_page(link), next, "{link}");
        check(r#"<http://h/a?page=2>; rel="next", <http://h/a?page=9>; rel="last""#, Some("http://h/a?page=2"));
        check(r#"<http://h/a?page=1>; rel="prev",<http://h/a?page=3>;rel="next""#, Some("http://h/a?page=3"));
        check(r#"<http://h/a?page=1>; rel="prev""#, None);
        check("nonsense, <", None);
        check("", None);
    }
}
