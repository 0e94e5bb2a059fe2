//! Naive local dates and times, as Python packs them, to moments in UTC.
//!
//! Why: the SDK gives a naive `datetime` in Taipei time, which is neither a moment nor, for a payload
//! it could not read, a time at all.
//!
//! Invariants:
//! 1. What the SDK puts in place of a date or time it cannot read is refused, not converted.
//! 2. Every other date of the proleptic Gregorian calendar converts exactly, or does not fit.
//!
//! It knows no time zones: the caller gives the offset. Operator's page: `docs/normaliser.md`.

use crate::reason::ReasonCode;

/// Nanoseconds of a second.
pub(super) const NS_PER_S: i64 = 1_000_000_000;
const NS_PER_US: i64 = 1_000;
pub(super) const DAY_S: i64 = 86_400;
/// The year that the SDK gives to a date it cannot read.
const YEAR_UNREADABLE: i64 = 2000;

/// A local date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
    microsecond: i64,
}

impl LocalTime {
    /// Reads the packed form of a naive `datetime`: year (2 bytes, big end first), month, day, hour,
    /// minute, second, microsecond (3 bytes); `None` when it is not that.
    #[must_use]
    pub fn from_packed(bytes: &[u8]) -> Option<Self> {
        let [
            year_high,
            year_low,
            month,
            day,
            hour,
            minute,
            second,
            us_high,
            us_mid,
            us_low,
        ] = <[u8; 10]>::try_from(bytes).ok()?;
        let microsecond = u32::from_be_bytes([0, us_high, us_mid, us_low]);
        let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
        let is_time = hour < 24 && minute < 60 && second < 60 && microsecond < 1_000_000;
        (is_date && is_time).then(|| Self {
            year: i64::from(u16::from_be_bytes([year_high, year_low])),
            month: i64::from(month),
            day: i64::from(day),
            second_of_day: (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second),
            microsecond: i64::from(microsecond),
        })
    }

    /// The moment in UTC, if the date and the time were read.
    ///
    /// # Errors
    /// `ExchangeDateInvalid`, `ExchangeTimeInvalid`, or `OutsideSession` for one that no 64-bit
    /// count of nanoseconds reaches.
    pub fn utc_ns(self, utc_offset_ns: i64) -> Result<i64, ReasonCode> {
        if self.year == YEAR_UNREADABLE {
            return Err(ReasonCode::ExchangeDateInvalid);
        }
        if self.second_of_day == 0 && self.microsecond == 0 {
            return Err(ReasonCode::ExchangeTimeInvalid);
        }
        // Years have five digits at most, so seconds fit by far.
        let seconds = self.days() * DAY_S + self.second_of_day;
        seconds
            .checked_mul(NS_PER_S)
            .and_then(|ns| ns.checked_add(self.microsecond * NS_PER_US))
            .and_then(|ns| ns.checked_sub(utc_offset_ns))
            .ok_or(ReasonCode::OutsideSession)
    }

    /// Days from 1970-01-01, by counting years from March, so that a leap day is a year's last.
    fn days(self) -> i64 {
        let is_early = self.month <= 2;
        let year = self.year - i64::from(is_early);
        let month_from_march = self.month + if is_early { 9 } else { -3 };
        let day_of_year = (153 * month_from_march + 2) / 5 + self.day - 1;
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        365 * year + leap_days + day_of_year - 719_468
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(year: u16, month: u8, day: u8, clock: [u8; 3], us: u32) -> [u8; 10] {
        let [year_high, year_low] = year.to_be_bytes();
        let [_, us_high, us_mid, us_low] = us.to_be_bytes();
        let [hour, minute, second] = clock;
        [
            year_high, year_low, month, day, hour, minute, second, us_high, us_mid, us_low,
        ]
    }

    fn days(year: u16, month: u8, day: u8) -> Option<i64> {
        LocalTime::from_packed(&packed(year, month, day, [1, 0, 0], 0)).map(LocalTime::days)
    }

    #[test]
    fn every_day_of_the_calendar_follows_the_one_before() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2026, 4, 10), Some(20_553));
        let mut expected = days(1, 1, 1).unwrap_or(0);
        assert_eq!(expected, -719_162);
        for year in 1..=9_999_u16 {
            let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let february = if is_leap { 29 } else { 28 };
            for (month, length) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
            {
                for day in 1..=length {
                    assert_eq!(
                        days(year, month, day),
                        Some(expected),
                        "{year}-{month}-{day}"
                    );
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn the_moment_is_exact_to_the_microsecond() {
        let bytes = packed(2026, 4, 10, [9, 0, 1], 123_456);
        let moment = LocalTime::from_packed(&bytes).map(|time| time.utc_ns(28_800 * NS_PER_S));
        assert_eq!(moment, Some(Ok(1_775_782_801_123_456_000)));
    }

    #[test]
    fn stand_ins_and_times_beyond_the_clock_are_refused() {
        let refused = |bytes: [u8; 10]| LocalTime::from_packed(&bytes).map(|time| time.utc_ns(0));
        let (date, time, outside) = (
            ReasonCode::ExchangeDateInvalid,
            ReasonCode::ExchangeTimeInvalid,
            ReasonCode::OutsideSession,
        );
        assert_eq!(refused(packed(2000, 1, 1, [9, 0, 0], 0)), Some(Err(date)));
        assert_eq!(refused(packed(2000, 12, 31, [0, 0, 0], 0)), Some(Err(date)));
        assert_eq!(refused(packed(2026, 4, 10, [0, 0, 0], 0)), Some(Err(time)));
        assert_eq!(
            refused(packed(9999, 1, 1, [1, 0, 0], 0)),
            Some(Err(outside))
        );
        assert_eq!(refused(packed(1, 1, 1, [1, 0, 0], 0)), Some(Err(outside)));
        assert!(matches!(
            refused(packed(2026, 4, 10, [0, 0, 0], 1)),
            Some(Ok(_))
        ));
    }

    #[test]
    fn bytes_that_are_no_packed_time_are_told() {
        let good = packed(2026, 4, 10, [9, 0, 1], 5);
        assert!(LocalTime::from_packed(&good[..9]).is_none());
        assert!(LocalTime::from_packed(&[]).is_none());
        for (place, value) in [
            (2, 0),
            (2, 13),
            (3, 0),
            (3, 32),
            (4, 24),
            (5, 60),
            (6, 60),
            (7, 16),
        ] {
            let mut bad = good;
            bad[place] = value;
            assert!(LocalTime::from_packed(&bad).is_none(), "{place} {value}");
        }
    }
}
