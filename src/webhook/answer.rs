//! The receiver's answers, in HTTP's words.

use std::borrow::Cow;
use std::fmt::Write as _;

use time::OffsetDateTime;
use tiny_http::{Method, Request, StatusCode};

use crate::text::escaped_lines;

/// An answer: status, one line of text, and the methods for a 405.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: Cow<'static, str>,
    pub(super) allow: Option<&'static str>,
    /// True where the text has lines; else it is made one.
    pub(super) lines: bool,
}

impl Answer {
    pub(super) fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Answer {
        Answer { status, text: text.into(), allow: None, lines: false }
    }
}

/// Writes answers, one behind the other. `tiny_http` would get a dozen pieces of memory for each, which threads wait for each other to get.
#[derive(Default)]
pub(super) struct Pen {
    whole: String,
    date: String,
    /// The second that `date` tells, of the system's clock.
    second: i64,
}

impl Pen {
    pub(super) fn write(&mut self, answer: &Answer, method: &Method) {
        self.write_at(OffsetDateTime::now_utc(), answer, *method == Method::Head);
    }

    /// Sends what was written.
    pub(super) fn send(&mut self, request: Request) {
        let mut writer = request.into_writer();
        let sent = writer.write_all(self.whole.as_bytes()).and_then(|()| writer.flush());
        if let Err(error) = sent {
            log::debug!("answer_lost error={error:?}");
        }
        self.whole.clear();
    }

    fn write_at(&mut self, now: OffsetDateTime, answer: &Answer, bodyless: bool) {
        let Answer { status, text, allow, lines } = answer;
        self.tell_date(now);
        // Writing to a String does not fail.
        let reason = StatusCode(*status).default_reason_phrase();
        let _ = write!(self.whole, "HTTP/1.1 {status} {reason}\r\nDate: {}\r\n", self.date);
        if let Some(methods) = allow {
            let _ = write!(self.whole, "Allow: {methods}\r\n");
        }
        // RFC 9110, 8.6: no length with a 204.
        if *status == 204 {
            self.whole.push_str("\r\n");
            return;
        }
        let text = if *lines { Cow::Borrowed(&**text) } else { text.replace(['\r', '\n'], " ").into() };
        let text = escaped_lines(&text);
        let length = text.len() + 1;
        let _ = write!(self.whole, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n");
        if !bodyless {
            self.whole.push_str(&text);
            self.whole.push('\n');
        }
    }

    /// A time as HTTP writes it (RFC 9110, 5.6.7).
    fn tell_date(&mut self, now: OffsetDateTime) {
        if self.second == now.unix_timestamp() && !self.date.is_empty() {
            return;
        }
        self.second = now.unix_timestamp();
        let (day, month) = (now.weekday().to_string(), now.month().to_string());
        let short = |name: &str| name.get(..3).unwrap_or_default().to_owned();
        let (date, year, (hour, minute, second)) = (now.day(), now.year(), now.to_hms());
        self.date =
            format!("{}, {date:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", short(&day), short(&month));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_with_its_date() {
        let mut pen = Pen::default();
        let mut check = |answer: Answer, bodyless: bool, seconds: i64, expected: &str| {
            pen.write_at(OffsetDateTime::from_unix_timestamp(seconds).unwrap(), &answer, bodyless);
            assert_eq!(std::mem::take(&mut pen.whole), expected);
        };
        let head = |status: &str, date: &str, more: &str| {
            format!(
                "HTTP/1.1 {status}\r\nDate: {date}\r\n{more}Content-Type: text/plain; charset=utf-8\r\nContent-Length: 4\r\n\r\n"
            )
        };
        let epoch = "Thu, 01 Jan 1970 00:00:00 GMT";
        check(Answer::new(200, "a\nb"), false, 0, &format!("{}a b\n", head("200 OK", epoch, "")));
        check(Answer::new(200, "a\nb"), true, 0, &head("200 OK", epoch, ""));
        let orders = format!("{}a\\x1bc\n", head("200 OK", epoch, "").replace("h: 4", "h: 7"));
        check(Answer::new(200, "a\u{1b}c"), false, 0, &orders);
        let two = Answer { lines: true, ..Answer::new(200, "a\nb") };
        check(two, false, 0, &format!("{}a\nb\n", head("200 OK", epoch, "")));
        let not_so = Answer { allow: Some("POST"), ..Answer::new(405, "no!") };
        let sunday = "Sun, 06 Nov 1994 08:49:37 GMT";
        let expected = format!("{}no!\n", head("405 Method Not Allowed", sunday, "Allow: POST\r\n"));
        check(not_so, false, 784_111_777, &expected);
        check(Answer::new(204, "x"), false, 0, &format!("HTTP/1.1 204 No Content\r\nDate: {epoch}\r\n\r\n"));
    }
}
