//! IP addresses in the legacy notation that older objects may have: with leading zeros, or IPv4 mapped into IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Parses standard and legacy notation; an IPv4-mapped address becomes the IPv4 address.
pub fn read(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| if text.contains(':') { six(text).map(IpAddr::V6) } else { four(text).map(IpAddr::V4) })?;
    Some(match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    })
}

/// Whether a text is an address in standard notation.
pub fn is_standard(text: &str) -> bool {
    match text.parse() {
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().is_none(),
        Ok(IpAddr::V4(_)) => true,
        Err(_) => false,
    }
}

fn four(text: &str) -> Option<Ipv4Addr> {
    let part = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
        if is_number { without_zeros(part).parse().ok() } else { None }
    };
    let parts = text.split('.').map(part).collect::<Option<Vec<u8>>>()?;
    Some(<[u8; 4]>::try_from(parts).ok()?.into())
}

fn six(text: &str) -> Option<Ipv6Addr> {
    let (groups, last) = match text.rsplit_once(':') {
        Some((groups, last)) if last.contains('.') => (groups, Some(four(last)?)),
        _ => (text, None),
    };
    let mut plain: Vec<String> = groups.split(':').map(|it| if it.is_empty() { it } else { without_zeros(it) }.to_owned()).collect();
    plain.extend(last.map(|it| it.to_string()));
    plain.join(":").parse().ok()
}

/// A number without its leading zeros.
fn without_zeros(number: &str) -> &str {
    let rest = number.trim_start_matches('0');
    if rest.is_empty() { &number[number.len().saturating_sub(1)..] } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_however_they_are_written() {
        for (text, address) in [
            ("10.0.0.1", "10.0.0.1"),
            ("010.000.0.0001", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:a00:1", "10.0.0.1"),
            ("::ffff:010.0.0.01", "10.0.0.1"),
            ("2001:DB8:0:0::1", "2001:db8::1"),
            ("02001:db8::00001", "2001:db8::1"),
            ("::", "::"),
        ] {
            assert_eq!(read(text).map(|it| it.to_string()).as_deref(), Some(address), "{text}");
        }
        for text in ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.", "+1.2.3.4", "1.2.3.4/5", "x::", "fe80::1%eth0", ":1", "12345::"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(is_standard("10.0.0.1") && is_standard("2001:DB8::1"));
        assert!(!is_standard("010.0.0.1") && !is_standard("::ffff:10.0.0.1") && !is_standard("x"));
    }
}
