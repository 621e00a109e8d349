//! The open connections: how many each address has, and which one is closed when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use super::client::Client;

/// The clients, each in its place.
#[derive(Default)]
pub(super) struct Connections {
    places: Vec<Option<Box<Client>>>,
    free: Vec<usize>,
    held: HashMap<IpAddr, usize>,
    /// Bytes held of requests that are not complete.
    pub(super) memory: usize,
    count: usize,
}

impl Connections {
    /// The number of clients.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are counted against `holder`.
    pub(super) fn held_by(&self, holder: IpAddr) -> usize {
        self.held.get(&holder).copied().unwrap_or(0)
    }

    /// The place of the next client.
    pub(super) fn next_place(&self) -> usize {
        self.free.last().copied().unwrap_or(self.places.len())
    }

    /// Adds a client.
    pub(super) fn enter(&mut self, client: Box<Client>) {
        self.count += 1;
        self.account(client.holder, true);
        let at = self.free.pop();
        match at.and_then(|at| self.places.get_mut(at)) {
            Some(place) => *place = Some(client),
            None => self.places.push(Some(client)),
        }
    }

    /// Takes a client out of its place, until `put_back` or `leave`.
    pub(super) fn take(&mut self, at: usize) -> Option<Box<Client>> {
        let client = self.places.get_mut(at)?.take()?;
        self.memory = self.memory.saturating_sub(client.held());
        self.account(client.holder, false);
        Some(client)
    }

    pub(super) fn put_back(&mut self, at: usize, client: Box<Client>) {
        self.memory += client.held();
        self.account(client.holder, true);
        if let Some(place) = self.places.get_mut(at) {
            *place = Some(client);
        }
    }

    /// A client that was taken out is gone.
    pub(super) fn leave(&mut self, at: usize) {
        self.count -= 1;
        self.free.push(at);
        if self.count == 0 {
            // Frees the memory of a flood.
            *self = Connections::default();
        }
    }

    fn account(&mut self, holder: Option<IpAddr>, more: bool) {
        let Some(holder) = holder else { return };
        if more {
            *self.held.entry(holder).or_default() += 1;
        } else if let Some(count) = self.held.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&holder);
            }
        }
    }

    /// True while a request is under way.
    pub(super) fn is_served(&self) -> bool {
        self.all().any(|(_, client)| !client.is_over())
    }

    fn all(&self) -> impl Iterator<Item = (usize, &Client)> {
        self.places.iter().enumerate().filter_map(|(at, client)| Some((at, client.as_deref()?)))
    }

    /// The clients whose deadline has passed.
    pub(super) fn overdue(&self, now: Instant) -> Vec<usize> {
        self.all().filter(|(_, client)| client.deadline <= now).map(|(at, _)| at).collect()
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.all().map(|(_, client)| client.deadline).min()
    }

    /// The connection to close when a place is needed: the oldest of the address with the most connections, among those
    /// whose request is not complete yet. A real delivery is complete long before that. `of` names the only holder to
    /// look at, `since` the latest beginning.
    pub(super) fn most_dispensable(&self, of: Option<IpAddr>, since: Instant) -> Option<usize> {
        let candidates = self.all().filter_map(|(at, client)| {
            let began = client.idle_since().filter(|began| *began <= since)?;
            let count = client.holder.map_or(1, |holder| self.held_by(holder));
            (of.is_none() || client.holder == of).then_some((std::cmp::Reverse(count), began, at))
        });
        candidates.min().map(|(_, _, at)| at)
    }

    /// The connection to close when memory is needed: the one that holds most, among those whose request is not complete.
    pub(super) fn heaviest(&self) -> Option<usize> {
        let idle = self.all().filter(|(_, client)| client.idle_since().is_some() && client.held() > 0);
        idle.max_by_key(|(_, client)| client.held()).map(|(at, _)| at)
    }
}
