//! Where is the host of this name? What the resolver of the system says.

use std::net::ToSocketAddrs as _;

use edgeward_core::action::{Addresses, ResolveError};

/// Looks a name up. This may block for as long as the resolver takes, so it is no work for the thread of a shard.
///
/// # Errors
/// When the name has no address, or the log says why none was found.
pub fn resolve(host: &str) -> Result<Addresses, ResolveError> {
    let addresses: Vec<_> = match (host, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "a name could not be looked up");
            Vec::new()
        }
    };
    if addresses.is_empty() {
        return Err(ResolveError);
    }
    Ok(Addresses { addresses })
}
