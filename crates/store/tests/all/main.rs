//! The one integration-test binary of the store.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod embedded;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod rot;
