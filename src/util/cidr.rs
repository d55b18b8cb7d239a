//! Ranges of IP addresses in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::address;

/// A range such as `10.10.10.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: IpAddr,
    bits: u8,
}

/// Text that is not a CIDR range.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range in CIDR notation, such as 10.10.10.0/24")]
pub struct NotCidr(String);

/// The prefix length of IPv4-mapped IPv6 addresses.
const MAPPED: u8 = 96;

impl Cidr {
    /// The range of the addresses with the first `bits` bits of this one.
    fn of(address: IpAddr, bits: u8) -> Self {
        let mask = u128::MAX.checked_shl((width(address) - bits).into()).unwrap_or(0);
        Self { base: from_number(number(address) & mask, address), bits }
    }

    /// The number of addresses in the range (saturating for `::/0`).
    pub fn size(&self) -> u128 {
        1u128.checked_shl(u32::from(width(self.base) - self.bits)).unwrap_or(u128::MAX)
    }

    /// The address at this offset from the first one.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        (index < self.size()).then(|| from_number(number(self.base) + index, self.base))
    }

    /// The inverse of [`Cidr::nth`]; `None` for an address outside.
    pub fn index_of(&self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.base.is_ipv4() {
            return None;
        }
        number(address).checked_sub(number(self.base)).filter(|it| *it < self.size())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.index_of(address).is_some()
    }

    /// Whether the address can be assigned to a host: not the network's own, nor (for IPv4) the broadcast address.
    pub fn has_host(&self, address: IpAddr) -> bool {
        let last = self.is_ipv4().then(|| self.size() - 1);
        self.index_of(address).is_some_and(|it| it != 0 && Some(it) != last)
    }

    /// Whether this range contains all of the other one.
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.base)
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    pub fn is_ipv4(&self) -> bool {
        self.base.is_ipv4()
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(it) => u32::from(it).into(),
        IpAddr::V6(it) => it.into(),
    }
}

fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

impl FromStr for Cidr {
    type Err = NotCidr;

    /// Clears the bits behind the prefix.
    fn from_str(text: &str) -> Result<Self, NotCidr> {
        let parse = || {
            let (address, bits) = text.split_once('/')?;
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            (bits <= width(address)).then(|| Self::of(address, bits))
        };
        parse().ok_or_else(|| NotCidr(text.to_owned()))
    }
}

/// A range as it is written in objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub range: Cidr,
    /// The address before the slash, which need not be the first of the range.
    pub address: IpAddr,
    /// Whether the notation is standard: no leading zeros, and no IPv4-mapped address.
    pub is_standard: bool,
}

impl Written {
    /// Parses standard and legacy notation; see [`address::read`].
    pub fn read(text: &str) -> Option<Self> {
        let (address, number) = text.split_once('/')?;
        if number.starts_with('+') {
            return None;
        }
        let bits: u8 = number.parse().ok()?;
        let is_standard = address::is_standard(address) && (number == "0" || !number.starts_with('0'));
        let written_in_six = address.contains(':');
        let address = address::read(address)?;
        if bits > if written_in_six { 128 } else { 32 } {
            return None;
        }
        let range = match address {
            IpAddr::V4(it) if written_in_six && bits < MAPPED => Cidr::of(it.to_ipv6_mapped().into(), bits),
            _ if written_in_six && address.is_ipv4() => Cidr::of(address, bits - MAPPED),
            _ => Cidr::of(address, bits),
        };
        Some(Self { range, address, is_standard })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_however_they_are_written() {
        for (text, range, address, is_standard) in [
            ("10.0.0.0/8", "10.0.0.0/8", "10.0.0.0", true),
            ("10.0.0.1/08", "10.0.0.0/8", "10.0.0.1", false),
            ("010.0.0.0/8", "10.0.0.0/8", "10.0.0.0", false),
            ("::ffff:10.0.0.1/104", "10.0.0.0/8", "10.0.0.1", false),
            ("2001:db8::1/64", "2001:db8::/64", "2001:db8::1", true),
        ] {
            let written = Written { range: range.parse().unwrap(), address: address.parse().unwrap(), is_standard };
            assert_eq!(Written::read(text), Some(written), "{text}");
        }
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/8x", "::/129", "10.0/8"] {
            assert_eq!(Written::read(text), None, "{text}");
        }
    }

    #[test]
    fn ranges() {
        let range: Cidr = "10.10.10.7/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.10.10.0/24");
        assert_eq!(range.size(), 256);
        assert_eq!(range.nth(1), Some("10.10.10.1".parse().unwrap()));
        assert_eq!(range.nth(256), None);
        assert_eq!(range.index_of("10.10.10.10".parse().unwrap()), Some(10));
        assert!(!range.contains("10.10.11.0".parse().unwrap()));
        assert!(!range.contains("::1".parse().unwrap()));
        assert_eq!("::/0".parse::<Cidr>().unwrap().size(), u128::MAX);
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().size(), 1 << 32);
        let host = |address: &str| range.has_host(address.parse().unwrap());
        assert!(host("10.10.10.1") && host("10.10.10.254"));
        assert!(!host("10.10.10.0") && !host("10.10.10.255") && !host("10.10.11.1"));
        assert!("2001:db8::/64".parse::<Cidr>().unwrap().has_host("2001:db8::ffff:ffff:ffff:ffff".parse().unwrap()));
        let [wide, other]: [Cidr; 2] = ["10.10.0.0/16", "10.11.0.0/16"].map(|it| it.parse().unwrap());
        assert!(wide.covers(&range) && !range.covers(&wide) && wide.covers(&wide) && !wide.covers(&other));
        assert!(wide.overlaps(&range) && range.overlaps(&wide) && !range.overlaps(&other));
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0/8", "/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
