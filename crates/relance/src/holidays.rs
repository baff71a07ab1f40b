//! Public holidays by country: the days that are kept in the whole country, by the rules that its law states them with.
//!
//! Regional holidays are a setting (`closed-days`), since where in a country a customer lives is not known. No library is
//! used: the maintained ones stand on `chrono`, which reads clocks and has no place in a pure crate, and the rules are a
//! table. Easter: the anonymous Gregorian algorithm (Nature, 20 April 1876; Meeus, Astronomical Algorithms, chapter 8).

use jiff::civil::{Date, Weekday};
use serde::Serialize;

/// How a holiday is found in a year.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Month and day.
    On(i8, i8),
    /// Days from Easter Sunday.
    Easter(i16),
    /// The nth weekday of a month; −1 is the last one.
    Nth(i8, Weekday, i8),
    /// Month and day; when that is a Sunday, the day after as well, and a Saturday, the day before.
    Nearest(i8, i8),
    /// Month and day; when that is at a weekend, the Monday that follows as well, or, from a Sunday, so many days later.
    Following(i8, i8, i8),
}

use Rule::{Easter, Following, Nearest, Nth, On};

macro_rules! countries {
    ($($code:ident = $name:literal, [$($rule:expr => $holiday:literal),* $(,)?];)*) => {
        /// A country whose holidays are known, by its ISO 3166-1 code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "UPPERCASE")]
        pub enum Country {
            $(#[doc = $name] $code,)*
        }

        impl Country {
            /// Every country.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// The ISO 3166-1 code in capital letters.
            #[must_use]
            pub fn code(self) -> String {
                match self { $(Self::$code => stringify!($code).to_uppercase(),)* }
            }

            const fn rules(self) -> &'static [(Rule, &'static str)] {
                match self { $(Self::$code => &[$(($rule, $holiday),)*],)* }
            }
        }
    };
}

countries! {
    At = "Austria", [
        On(1, 1) => "New Year", On(1, 6) => "Epiphany", Easter(1) => "Easter Monday", On(5, 1) => "Labour Day",
        Easter(39) => "Ascension", Easter(50) => "Whit Monday", Easter(60) => "Corpus Christi", On(8, 15) => "Assumption",
        On(10, 26) => "National Day", On(11, 1) => "All Saints", On(12, 8) => "Immaculate Conception",
        On(12, 25) => "Christmas", On(12, 26) => "St Stephen's Day",
    ];
    Be = "Belgium", [
        On(1, 1) => "New Year", Easter(1) => "Easter Monday", On(5, 1) => "Labour Day", Easter(39) => "Ascension",
        Easter(50) => "Whit Monday", On(7, 21) => "National Day", On(8, 15) => "Assumption", On(11, 1) => "All Saints",
        On(11, 11) => "Armistice Day", On(12, 25) => "Christmas",
    ];
    Ch = "Switzerland (cantons add their own)", [
        On(1, 1) => "New Year", Easter(39) => "Ascension", On(8, 1) => "National Day", On(12, 25) => "Christmas",
    ];
    De = "Germany (states add their own)", [
        On(1, 1) => "New Year", Easter(-2) => "Good Friday", Easter(1) => "Easter Monday", On(5, 1) => "Labour Day",
        Easter(39) => "Ascension", Easter(50) => "Whit Monday", On(10, 3) => "German Unity Day", On(12, 25) => "Christmas",
        On(12, 26) => "Boxing Day",
    ];
    Es = "Spain (communities add their own)", [
        On(1, 1) => "New Year", On(1, 6) => "Epiphany", Easter(-2) => "Good Friday", On(5, 1) => "Labour Day",
        On(8, 15) => "Assumption", On(10, 12) => "National Day", On(11, 1) => "All Saints", On(12, 6) => "Constitution Day",
        On(12, 8) => "Immaculate Conception", On(12, 25) => "Christmas",
    ];
    Fr = "France", [
        On(1, 1) => "New Year", Easter(1) => "Easter Monday", On(5, 1) => "Labour Day", On(5, 8) => "Victory Day",
        Easter(39) => "Ascension", Easter(50) => "Whit Monday", On(7, 14) => "National Day", On(8, 15) => "Assumption",
        On(11, 1) => "All Saints", On(11, 11) => "Armistice Day", On(12, 25) => "Christmas",
    ];
    Gb = "United Kingdom, as England and Wales keep it", [
        Following(1, 1, 0) => "New Year", Easter(-2) => "Good Friday", Easter(1) => "Easter Monday",
        Nth(5, Weekday::Monday, 1) => "Early May bank holiday", Nth(5, Weekday::Monday, -1) => "Spring bank holiday",
        Nth(8, Weekday::Monday, -1) => "Summer bank holiday", Following(12, 25, 1) => "Christmas",
        Following(12, 26, 1) => "Boxing Day",
    ];
    Ie = "Ireland", [
        On(1, 1) => "New Year", Nth(2, Weekday::Monday, 1) => "St Brigid's Day", On(3, 17) => "St Patrick's Day",
        Easter(1) => "Easter Monday", Nth(5, Weekday::Monday, 1) => "May Day", Nth(6, Weekday::Monday, 1) => "June holiday",
        Nth(8, Weekday::Monday, 1) => "August holiday", Nth(10, Weekday::Monday, -1) => "October holiday",
        On(12, 25) => "Christmas", On(12, 26) => "St Stephen's Day",
    ];
    It = "Italy", [
        On(1, 1) => "New Year", On(1, 6) => "Epiphany", Easter(1) => "Easter Monday", On(4, 25) => "Liberation Day",
        On(5, 1) => "Labour Day", On(6, 2) => "Republic Day", On(8, 15) => "Assumption", On(11, 1) => "All Saints",
        On(12, 8) => "Immaculate Conception", On(12, 25) => "Christmas", On(12, 26) => "St Stephen's Day",
    ];
    Lu = "Luxembourg", [
        On(1, 1) => "New Year", Easter(1) => "Easter Monday", On(5, 1) => "Labour Day", On(5, 9) => "Europe Day",
        Easter(39) => "Ascension", Easter(50) => "Whit Monday", On(6, 23) => "National Day", On(8, 15) => "Assumption",
        On(11, 1) => "All Saints", On(12, 25) => "Christmas", On(12, 26) => "St Stephen's Day",
    ];
    Nl = "Netherlands", [
        On(1, 1) => "New Year", Easter(1) => "Easter Monday", On(4, 27) => "King's Day", Easter(39) => "Ascension",
        Easter(50) => "Whit Monday", On(12, 25) => "Christmas", On(12, 26) => "Boxing Day",
    ];
    Pl = "Poland", [
        On(1, 1) => "New Year", On(1, 6) => "Epiphany", Easter(1) => "Easter Monday", On(5, 1) => "Labour Day",
        On(5, 3) => "Constitution Day", Easter(60) => "Corpus Christi", On(8, 15) => "Assumption", On(11, 1) => "All Saints",
        On(11, 11) => "Independence Day", On(12, 24) => "Christmas Eve", On(12, 25) => "Christmas", On(12, 26) => "Boxing Day",
    ];
    Pt = "Portugal", [
        On(1, 1) => "New Year", Easter(-2) => "Good Friday", On(4, 25) => "Freedom Day", On(5, 1) => "Labour Day",
        Easter(60) => "Corpus Christi", On(6, 10) => "Portugal Day", On(8, 15) => "Assumption", On(10, 5) => "Republic Day",
        On(11, 1) => "All Saints", On(12, 1) => "Independence Day", On(12, 8) => "Immaculate Conception",
        On(12, 25) => "Christmas",
    ];
    Us = "United States (federal)", [
        Nearest(1, 1) => "New Year", Nth(1, Weekday::Monday, 3) => "Martin Luther King Day",
        Nth(2, Weekday::Monday, 3) => "Washington's Birthday", Nth(5, Weekday::Monday, -1) => "Memorial Day",
        Nearest(6, 19) => "Juneteenth", Nearest(7, 4) => "Independence Day", Nth(9, Weekday::Monday, 1) => "Labor Day",
        Nth(10, Weekday::Monday, 2) => "Columbus Day", Nearest(11, 11) => "Veterans Day",
        Nth(11, Weekday::Thursday, 4) => "Thanksgiving", Nearest(12, 25) => "Christmas",
    ];
}

impl Country {
    /// Reads an ISO 3166-1 code, in whatever case.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let code = code.to_uppercase();
        Self::ALL.iter().copied().find(|country| country.code() == code)
    }

    /// The name of the holiday on a day, if it is one.
    #[must_use]
    pub fn holiday(self, date: Date) -> Option<&'static str> {
        let rule = self.rules().iter().find(|(rule, _)| rule.falls_on(date));
        rule.map(|(_, name)| *name)
    }
}

impl Rule {
    fn falls_on(self, date: Date) -> bool {
        let on = |month, day| date.month() == month && date.day() == day;
        let fixed = |year, month, day| Date::new(year, month, day).ok();
        let days = |from: Date, to: Date| (to - from).get_days();
        match self {
            On(month, day) => on(month, day),
            Easter(offset) => easter(date.year()).is_some_and(|easter| days(easter, date) == i32::from(offset)),
            Nth(month, weekday, nth) => {
                let from_start = (date.day() - 1) / 7 + 1;
                let is_last = date.day() + 7 > date.days_in_month();
                date.month() == month && date.weekday() == weekday && (nth == from_start || (nth < 0 && is_last))
            }
            Nearest(month, day) => {
                // A Saturday's substitute may lie in the year before.
                let years = [date.year(), date.year().saturating_add(1)];
                years
                    .iter()
                    .filter_map(|year| fixed(*year, month, day))
                    .any(|own| match own.weekday() {
                        Weekday::Saturday => days(own, date) == -1 || own == date,
                        Weekday::Sunday => days(own, date) == 1 || own == date,
                        _ => own == date,
                    })
            }
            Following(month, day, taken) => fixed(date.year(), month, day).is_some_and(|own| {
                let monday = i32::from(7 - own.weekday().to_monday_zero_offset());
                // Monday may be taken: by Boxing Day when Christmas is a Sunday, by Christmas's substitute when it is a Saturday.
                let substitute = match own.weekday() {
                    Weekday::Saturday => monday,
                    Weekday::Sunday => monday + i32::from(taken),
                    _ => 0,
                };
                let after = days(own, date);
                after == 0 || after == substitute
            }),
        }
    }
}

/// Easter Sunday of a year.
fn easter(year: i16) -> Option<Date> {
    let y = i32::from(year);
    let (a, b, c) = (y % 19, y / 100, y % 100);
    let (d, e) = (b / 4, b % 4);
    let f = (b + 8) / 25;
    let g = (b - f + 1) / 3;
    let h = (19 * a + b - d - g + 15) % 30;
    let (i, k) = (c / 4, c % 4);
    let l = (32 + 2 * e + 2 * i - h - k) % 7;
    let m = (a + 11 * h + 22 * l) / 451;
    let month = (h + l - 7 * m + 114) / 31;
    let day = (h + l - 7 * m + 114) % 31 + 1;
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    /// Every holiday of a year, in order.
    fn year(country: Country, year: i16) -> Vec<String> {
        let first = Date::new(year, 1, 1).unwrap();
        let days = first
            .series(jiff::Span::new().days(1))
            .take_while(|day| day.year() == year);
        days.filter(|day| country.holiday(*day).is_some())
            .map(|day| day.strftime("%m-%d").to_string())
            .collect()
    }

    #[test]
    fn easter_is_where_almanacs_have_it() {
        for day in [
            "1961-04-02",
            "2000-04-23",
            "2008-03-23",
            "2011-04-24",
            "2019-04-21",
            "2024-03-31",
            "2025-04-20",
            "2026-04-05",
            "2038-04-25",
        ] {
            assert_eq!(easter(date(day).year()), Some(date(day)));
        }
    }

    #[test]
    fn years_are_as_they_were_published() {
        // service-public.fr 2026; gov.uk 2021, 2022 (without the jubilee) and 2027; opm.gov 2021 and 2022.
        assert_eq!(
            year(Country::Fr, 2026),
            [
                "01-01", "04-06", "05-01", "05-08", "05-14", "05-25", "07-14", "08-15", "11-01", "11-11", "12-25"
            ]
        );
        let gb = year(Country::Gb, 2021);
        assert_eq!(
            gb,
            [
                "01-01", "04-02", "04-05", "05-03", "05-31", "08-30", "12-25", "12-26", "12-27", "12-28"
            ]
        );
        assert_eq!(year(Country::Gb, 2022)[..2], ["01-01", "01-03"]);
        assert_eq!(year(Country::Gb, 2022)[7..], ["12-25", "12-26", "12-27"]);
        assert_eq!(
            year(Country::Us, 2021),
            [
                "01-01", "01-18", "02-15", "05-31", "06-18", "06-19", "07-04", "07-05", "09-06", "10-11", "11-11",
                "11-25", "12-24", "12-25", "12-31"
            ]
        );
        assert_eq!(Country::De.holiday(date("2026-10-03")), Some("German Unity Day"));
        assert_eq!(Country::De.holiday(date("2026-10-04")), None);
    }
}
