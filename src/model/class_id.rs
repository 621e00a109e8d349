//! Ids of the config's classes.

use std::ops::{Index, IndexMut};

/// A class, by its place in `runnermap`. A process has one config, so the class exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub usize);

/// One thing for each class of the config, in its order.
#[derive(Clone, Debug)]
pub struct PerClass<T>(Vec<T>);

impl<T> PerClass<T> {
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}

impl<T> FromIterator<T> for PerClass<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> PerClass<T> {
        PerClass(all.into_iter().collect())
    }
}

#[allow(clippy::indexing_slicing, reason = "there is one for each class, and an id is a class's")]
impl<T> Index<ClassId> for PerClass<T> {
    type Output = T;

    fn index(&self, class: ClassId) -> &T {
        &self.0[class.0]
    }
}

#[allow(clippy::indexing_slicing, reason = "there is one for each class, and an id is a class's")]
impl<T> IndexMut<ClassId> for PerClass<T> {
    fn index_mut(&mut self, class: ClassId) -> &mut T {
        &mut self.0[class.0]
    }
}
