//! What the last look at a listing found, kept so that the next one costs nothing where nothing changed.
//!
//! GitHub names each page's state by an ETag. Asked with that name it answers 304 while the page is still the same, and
//! such an answer does not count against the hourly limit. Kept are the names and what we made of the pages; never
//! GitHub's own text, which is a hundred times as long.

/// A listing as it was last seen. Starts out as never seen.
#[derive(Clone, Debug)]
pub struct Listing<T> {
    pages: Vec<Page<T>>,
    /// Since the caller was last told that it did.
    changed: bool,
}

/// One page.
#[derive(Clone, Debug)]
pub(super) struct Page<T> {
    pub url: String,
    pub etag: Option<String>,
    /// The address of the page that follows.
    pub next: Option<String>,
    pub items: Vec<T>,
}

impl<T> Default for Listing<T> {
    fn default() -> Listing<T> {
        Listing { pages: Vec::new(), changed: false }
    }
}

impl<T> Listing<T> {
    /// What all pages list, in their order.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| &page.items)
    }

    /// The `number`-th page, where it is known and at this address.
    pub(super) fn page(&self, number: usize, url: &str) -> Option<&Page<T>> {
        self.pages.get(number).filter(|page| page.url == url)
    }

    /// Puts a page in the `number`-th place, which is among those that are there or the next.
    pub(super) fn put(&mut self, number: usize, page: Page<T>) {
        self.changed = true;
        match self.pages.get_mut(number) {
            Some(known) => *known = page,
            None => self.pages.push(page),
        }
    }

    /// There are so many pages. True where anything changed since this was last called.
    pub(super) fn end(&mut self, count: usize) -> bool {
        self.changed |= self.pages.len() > count;
        self.pages.truncate(count);
        std::mem::take(&mut self.changed)
    }
}
