//! The address that a request is counted for: the client, behind any trusted proxies.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Returns the address of the client: the peer, or, if the peer is a trusted proxy, the client that the proxies name in
/// the lines of `X-Forwarded-For`. Each proxy appends the address that its request came from, so the lines are read
/// from the right, up to the first address that is not trusted. Anyone can have written what is to the left of it.
pub(crate) fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl Iterator<Item = &'a str>,
    trusted: &[IpNet],
) -> IpAddr {
    let lines: Vec<&str> = forwarded.collect();
    let words = lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim);
    let mut words = words.filter(|word| !word.is_empty());
    let mut client = peer.to_canonical();
    while is_trusted(client, trusted) {
        // A proxy that names no address is counted itself.
        let Some(before) = words.next().and_then(parse) else { break };
        client = before;
    }
    client
}

/// Whether an address is one of the trusted proxies.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// Returns the address that stands for all addresses of a client: an IPv4 address itself, an IPv6 address's /64,
/// because one client usually has all of it.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Reads an address, which may be in brackets and may have a port. Returns `None` if the text is not one.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip()).ok();
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the client of a request that came from `peer` with these lines of `X-Forwarded-For`.
    fn client(peer: &str, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1/32"];
        let trusted = trusted.map(|net| net.parse::<IpNet>().unwrap());
        client_address(peer.parse().unwrap(), lines.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn who_is_no_proxy_says_nothing() {
        assert_eq!(client("198.51.100.7", &["203.0.113.9"]), "198.51.100.7");
        assert_eq!(client("198.51.100.7", &["10.0.0.1", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("2001:db8:2::1", &["203.0.113.9"]), "2001:db8:2::1");
    }

    #[test]
    fn the_first_from_the_right_that_is_no_proxy_is_the_client() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "203.0.113.9", "192.0.2.1 ,10.0.0.2"]), "203.0.113.9");
        assert_eq!(client("2001:db8:1::1", &["2001:db8:3::1,2001:db8:1::2"]), "2001:db8:3::1");
    }

    #[test]
    fn where_all_are_proxies_it_is_the_one_that_was_asked_first() {
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["", " , ,"]), "10.0.0.1");
    }

    #[test]
    fn nothing_is_believed_behind_what_is_no_address() {
        assert_eq!(client("10.0.0.1", &["203.0.113.9, unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, x, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["x, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["1.2.3.4.5", "[::1", "300.1.1.1"]), "10.0.0.1");
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_read() {
        assert_eq!(client("10.0.0.1", &["1.2.3.4:555"]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["[::1]:80"]), "::1");
        assert_eq!(client("10.0.0.1", &["[::1]"]), "::1");
        assert_eq!(client("10.0.0.1", &["::ffff:1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("::ffff:10.0.0.1", &["1.2.3.4, ::ffff:10.0.0.2"]), "1.2.3.4");
    }

    #[test]
    fn an_ipv6_client_is_all_of_its_network() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:2:3:4:5:6:7"), "2001:db8:2:3::");
        assert_eq!(network("1.2.3.4"), "1.2.3.4");
        assert_eq!(network("::ffff:1.2.3.4"), "1.2.3.4");
    }
}
