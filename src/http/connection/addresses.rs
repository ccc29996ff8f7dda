//! Connections by the address they come from, so that one client cannot hold all there are.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::http::caller::penalty::network;

/// Addresses with open connections; there are no more of them than connections.
#[derive(Default)]
pub struct Addresses(Mutex<HashMap<IpAddr, usize>>);

/// One connection of an address, for as long as it lives.
pub struct Arrived {
    addresses: Arc<Addresses>,
    from: IpAddr,
}

impl Addresses {
    /// `None` when `max` connections from there are open. An IPv6 client is its network of 64 bits.
    pub fn arrive(self: &Arc<Self>, from: IpAddr, max: usize) -> Option<Arrived> {
        let from = network(from);
        let mut addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = addresses.entry(from).or_default();
        if *open >= max {
            return None;
        }
        *open += 1;
        Some(Arrived { addresses: Arc::clone(self), from })
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        let mut addresses = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = addresses.get_mut(&self.from) {
            *open -= 1;
            if *open == 0 {
                addresses.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_and_is_forgotten_with_the_last() {
        let addresses = Arc::new(Addresses::default());
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "192.0.2.1".parse().unwrap();
        let held = [addresses.arrive(one, 2).unwrap(), addresses.arrive(neighbour, 2).unwrap()];
        assert!(addresses.arrive(one, 2).is_none());
        assert!(addresses.arrive(other, 2).is_some());
        assert_eq!(addresses.0.lock().unwrap().len(), 1);
        drop(held);
        assert!(addresses.0.lock().unwrap().is_empty());
    }
}
