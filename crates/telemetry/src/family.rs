//! Handles that differ in one label: a family where its values are only known at run time (workspace, partition, policy), an
//! array where they are a closed list.
//!
//! A family never grows beyond its stated bound: once `max` values have been seen, every further value is counted under
//! `other` (BOUND-1). A family never forgets a value, so counters never go backwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::catalogue::Metric;

/// The label value that stands for all values beyond the bound.
pub(crate) const OTHER: &str = "other";

/// Handles by label value.
#[derive(Clone)]
pub(crate) struct Family<H> {
    inner: Arc<Inner<H>>,
}

type Make<H> = Box<dyn Fn(&str) -> H + Send + Sync>;

struct Inner<H> {
    max: usize,
    make: Make<H>,
    handles: RwLock<HashMap<Box<str>, Arc<H>>>,
}

impl<H> Family<H> {
    pub(crate) fn new(max: usize, make: impl Fn(&str) -> H + Send + Sync + 'static) -> Family<H> {
        Family {
            inner: Arc::new(Inner {
                max,
                make: Box::new(make),
                handles: RwLock::default(),
            }),
        }
    }

    /// The handle of `value`, registered on first use.
    pub(crate) fn get(&self, value: &str) -> Arc<H> {
        // A panic while the lock is held leaves a complete map behind: there is nothing to repair.
        if let Some(handle) = self
            .inner
            .handles
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(value)
        {
            return Arc::clone(handle);
        }
        let mut handles = self.inner.handles.write().unwrap_or_else(PoisonError::into_inner);
        let full = handles.len() >= self.inner.max && !handles.contains_key(value);
        let value = if full { OTHER } else { value };
        let handle = handles
            .entry(Box::from(value))
            .or_insert_with(|| Arc::new((self.inner.make)(value)));
        Arc::clone(handle)
    }
}

impl<H> fmt::Debug for Family<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.inner.handles.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Family")
            .field("max", &self.inner.max)
            .field("known", &known)
            .finish()
    }
}

/// One handle per value of a closed label that arrives as a name. All are registered at once, so that the first increase
/// of each is seen as one.
#[derive(Clone, Debug)]
pub(crate) struct ByName<H> {
    handles: Arc<[(&'static str, H)]>,
}

impl<H> ByName<H> {
    pub(crate) fn new(metric: &'static Metric, label: &str, make: impl Fn(&'static str) -> H) -> ByName<H> {
        let values = metric.closed(label);
        ByName {
            handles: values.iter().map(|value| (*value, make(value))).collect(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&H> {
        let found = self.handles.iter().find(|(value, _)| *value == name);
        debug_assert!(found.is_some(), "{name} is not in the catalogue");
        found.map(|(_, handle)| handle)
    }
}

/// One handle per value of a closed label, indexed by the enum.
#[derive(Clone, Debug)]
pub(crate) struct ByValue<H> {
    handles: Arc<[H]>,
}

impl<H> ByValue<H> {
    pub(crate) fn new(handles: impl Iterator<Item = H>) -> ByValue<H> {
        ByValue {
            handles: handles.collect(),
        }
    }

    pub(crate) fn at(&self, index: usize) -> Option<&H> {
        self.handles.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_bound_are_other() {
        let family = Family::new(2, str::to_owned);
        assert_eq!(*family.get("a"), "a");
        assert_eq!(*family.get("b"), "b");
        assert_eq!(*family.get("c"), OTHER);
        assert_eq!(*family.get("d"), OTHER);
        assert_eq!(*family.get("a"), "a", "a known value stays itself");
        assert!(Arc::ptr_eq(&family.get("c"), &family.get("d")));
        assert_eq!(family.inner.handles.read().unwrap().len(), 3, "two values and `other`");
    }
}
