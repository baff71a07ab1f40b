//! A family of handles that differ in one label whose values are only known at run time (workspace, partition, policy).
//!
//! It never grows beyond its stated bound: once `max` values have been seen, every further value is counted under
//! `other` (BOUND-1). A family never forgets a value, so counters never go backwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

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
