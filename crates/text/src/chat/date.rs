//! The time of day a template may ask for. It is given by the caller, never read from a clock.

/// A point in time, as a calendar shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Year, such as 2025.
    pub year: i32,
    /// 1..=12
    pub month: u8,
    /// 1..=31
    pub day: u8,
    /// 0..=23
    pub hour: u8,
    /// 0..=59
    pub minute: u8,
    /// 0..=59
    pub second: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl DateTime {
    /// The UTC time `seconds` after 1970-01-01 00:00.
    pub fn from_unix(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days since 0000-03-01, in 400-year eras of 146,097 days; years begin in March, so leap days come last.
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: (era * 400 + year_of_era + i64::from(month <= 2)) as i32,
            month: month as u8,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u8,
            hour: (rest / 3_600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// C's `strftime` in the C locale; unknown directives stay as they are.
    pub(crate) fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next().unwrap_or('%');
            let unpadded = directive == '-';
            if unpadded {
                directive = chars.next().unwrap_or('-');
            }
            out.push_str(&self.directive(directive, unpadded));
        }
        out
    }

    fn directive(&self, directive: char, unpadded: bool) -> String {
        let number = |value: i64, width: usize| match unpadded {
            true => value.to_string(),
            false => format!("{value:0width$}"),
        };
        let name = |names: &[&'static str], at: u8| names.get(usize::from(at)).copied().unwrap_or("?");
        let hour12 = (self.hour + 11) % 12 + 1;
        match directive {
            'Y' => self.year.to_string(),
            'y' => number(i64::from(self.year.rem_euclid(100)), 2),
            'm' => number(self.month.into(), 2),
            'd' => number(self.day.into(), 2),
            'e' => format!("{:2}", self.day),
            'H' => number(self.hour.into(), 2),
            'I' => number(hour12.into(), 2),
            'M' => number(self.minute.into(), 2),
            'S' => number(self.second.into(), 2),
            'j' => number(self.day_of_year(), 3),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.into(),
            'B' => name(&MONTHS, self.month.wrapping_sub(1)).into(),
            'b' | 'h' => name(&MONTHS, self.month.wrapping_sub(1))[..3].into(),
            'A' => name(&DAYS, self.weekday()).into(),
            'a' => name(&DAYS, self.weekday())[..3].into(),
            'w' => self.weekday().to_string(),
            'F' => self.format("%Y-%m-%d"),
            'T' => self.format("%H:%M:%S"),
            'R' => self.format("%H:%M"),
            'D' => self.format("%m/%d/%y"),
            '%' => "%".into(),
            other => format!("%{other}"),
        }
    }

    /// 0 is Sunday (Sakamoto's method).
    fn weekday(&self) -> u8 {
        let offsets = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let offset = offsets.get(usize::from(self.month.wrapping_sub(1))).copied().unwrap_or(0);
        let year = i64::from(self.year) - i64::from(self.month < 3);
        let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        (year + leaps + offset + i64::from(self.day)).rem_euclid(7) as u8
    }

    fn day_of_year(&self) -> i64 {
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let year = self.year;
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let before = before.get(usize::from(self.month.wrapping_sub(1))).copied().unwrap_or(0);
        before + i64::from(self.day) + i64::from(leap && self.month > 2)
    }
}

#[cfg(test)]
mod tests {
    use super::DateTime;

    fn check(seconds: i64, format: &str, expected: &str) {
        assert_eq!(DateTime::from_unix(seconds).format(format), expected, "{seconds} {format}");
    }

    #[test]
    fn dates_read_as_c_writes_them() {
        check(0, "%A %F %T %j", "Thursday 1970-01-01 00:00:00 001");
        check(951_782_400, "%a %d %b %Y %p %I", "Tue 29 Feb 2000 AM 12");
        check(1_735_689_599, "%B %-d, %Y %H:%M:%S %j %y %D", "December 31, 2024 23:59:59 366 24 12/31/24");
        check(-1, "%F %R %e%%%Q", "1969-12-31 23:59 31%%Q");
        check(4_107_542_400, "%A %e %-m", "Monday  1 3");
    }
}
