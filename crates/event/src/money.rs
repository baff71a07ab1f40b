//! Money in minor units of an ISO 4217 currency. It never converts between currencies and never uses floats:
//! an amount is read from its decimal text, exactly.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An ISO 4217 alphabetic code, upper case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Currency([u8; 3]);

/// An amount of money: minor units (cents for EUR, yen for JPY, mils for KWD), negative for money given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Minor units.
    pub minor: i64,
    /// The unit's currency.
    pub currency: Currency,
}

/// Why a text is not money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not one of the active ISO 4217 codes.
    #[error("currency is not an ISO 4217 code such as EUR")]
    Currency,
    /// Not a plain decimal number with a point.
    #[error("amount is not a decimal number such as 12.50")]
    Amount,
    /// More than 10^15 minor units either way.
    #[error("amount is beyond 10^15 minor units")]
    Range,
}

/// ISO 4217 codes with no minor unit.
const NONE: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
/// ISO 4217 codes with three decimal places.
const THREE: &str = "BHD IQD JOD KWD LYD OMR TND";
/// ISO 4217 codes with two decimal places.
const TWO: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF \
CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR \
IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO \
NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS \
TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD XCG YER ZAR ZMW ZWG";

/// Largest magnitude in minor units: a thousand billion euros, far from overflow even after 9,000 additions.
const MAX_MINOR: i64 = 1_000_000_000_000_000;

impl Currency {
    /// Reads a code in either case.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let mut code = [0u8; 3];
        if text.len() != 3 {
            return Err(MoneyError::Currency);
        }
        for (to, from) in code.iter_mut().zip(text.bytes()) {
            *to = from.to_ascii_uppercase();
        }
        let currency = Self(code);
        if currency.is_listed() {
            Ok(currency)
        } else {
            Err(MoneyError::Currency)
        }
    }

    /// The code, for example `EUR`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Decimal places of the minor unit: 0, 2 or 3.
    #[must_use]
    pub fn exponent(self) -> u32 {
        // Whatever is listed and not here has two.
        if self.is_in(NONE) {
            0
        } else if self.is_in(THREE) {
            3
        } else {
            2
        }
    }

    fn is_listed(self) -> bool {
        [TWO, NONE, THREE].into_iter().any(|list| self.is_in(list))
    }

    /// Whether the code is in a list of codes with a space between each two.
    fn is_in(self, list: &str) -> bool {
        list.as_bytes().chunks(4).any(|code| code.starts_with(&self.0))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Money {
    /// Reads a decimal text in major units (`12.5`, `-3`, `1e2`), rounding half away from zero to the minor unit.
    ///
    /// Clients compute amounts in floating point, so more decimals than the currency has are rounded, not refused.
    pub fn parse(amount: &str, currency: Currency) -> Result<Self, MoneyError> {
        let (mantissa, power) = match amount.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i32>().map_err(|_| MoneyError::Amount)?),
            None => (amount, 0),
        };
        if !(-30..=30).contains(&power) {
            return Err(MoneyError::Range);
        }
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        {
            return Err(MoneyError::Amount);
        }
        // value = digits × 10^(power − fraction digits); wanted in units of 10^−exponent.
        let places = i32::try_from(fraction.len()).map_err(|_| MoneyError::Range)?;
        let exponent = i32::try_from(currency.exponent()).unwrap_or(2);
        let shift = power + exponent - places;
        let mut minor: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            minor = minor
                .checked_mul(10)
                .and_then(|m| m.checked_add(i128::from(digit - b'0')))
                .ok_or(MoneyError::Range)?;
        }
        let magnitude = 10i128.checked_pow(shift.unsigned_abs()).unwrap_or(i128::MAX);
        minor = if shift >= 0 {
            minor.checked_mul(magnitude).ok_or(MoneyError::Range)?
        } else {
            let half_up = minor.checked_add(magnitude / 2).ok_or(MoneyError::Range)?;
            half_up / magnitude
        };
        let minor = i64::try_from(minor).map_err(|_| MoneyError::Range)?;
        if minor > MAX_MINOR {
            return Err(MoneyError::Range);
        }
        Ok(Self {
            minor: if negative { -minor } else { minor },
            currency,
        })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = self.currency.exponent();
        let unit = 10u64.pow(exponent);
        let sign = if self.minor < 0 { "-" } else { "" };
        let magnitude = self.minor.unsigned_abs();
        write!(f, "{sign}{}", magnitude / unit)?;
        if exponent > 0 {
            write!(f, ".{:0width$}", magnitude % unit, width = exponent as usize)?;
        }
        write!(f, " {}", self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: &str, currency: &str) -> Result<String, MoneyError> {
        Currency::parse(currency)
            .and_then(|c| Money::parse(amount, c))
            .map(|m| m.to_string())
    }

    #[test]
    fn amounts_are_exact() {
        for (amount, currency, expected) in [
            ("12.5", "eur", "12.50 EUR"),
            ("-0.01", "USD", "-0.01 USD"),
            ("29.339999999999999", "USD", "29.34 USD"),
            ("1e2", "GBP", "100.00 GBP"),
            ("1500", "JPY", "1500 JPY"),
            ("1.2345", "KWD", "1.235 KWD"),
            ("0", "EUR", "0.00 EUR"),
            (".5", "EUR", "0.50 EUR"),
        ] {
            assert_eq!(money(amount, currency).as_deref(), Ok(expected), "{amount} {currency}");
        }
    }

    #[test]
    fn what_is_not_money_is_refused() {
        for (amount, currency, error) in [
            ("12,50", "EUR", MoneyError::Amount),
            ("", "EUR", MoneyError::Amount),
            ("-", "EUR", MoneyError::Amount),
            ("NaN", "EUR", MoneyError::Amount),
            ("1", "€€€", MoneyError::Currency),
            ("1", "EURO", MoneyError::Currency),
            ("1", "XXY", MoneyError::Currency),
            ("1e29", "EUR", MoneyError::Range),
            ("99999999999999999999999999999999999999999", "EUR", MoneyError::Range),
            ("1e99", "EUR", MoneyError::Range),
        ] {
            assert_eq!(money(amount, currency), Err(error), "{amount} {currency}");
        }
    }
}
