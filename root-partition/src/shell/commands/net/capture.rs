//! `net capture`: frames of a port as a pcap file, in base64 on the console.

use super::super::{Invocation, Outcome, arguments::Flag, switch::networks};
use super::port;
use crate::net::capture::Capture;
use crate::shell::{
    output::{Report, Value},
    status::Failure,
    system::Pending,
};
use alloc::{boxed::Box, format, sync::Arc};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use core::time::Duration;
use embassy_futures::select::select;

pub(in super::super) const FRAMES: Flag = Flag {
    name: "--frames",
    value: Some("N"),
    help: "How many frames; 100 where not given",
};

pub(in super::super) const SECONDS: Flag = Flag {
    name: "--seconds",
    value: Some("N"),
    help: "How long at most; 10 where not given",
};

const DEFAULT_FRAMES: u64 = 100;
const MAX_FRAMES: u64 = 100_000;
const DEFAULT_SECONDS: u64 = 10;
const MAX_SECONDS: u64 = 3600;
/// Characters of a line of base64.
const LINE: usize = 76;

pub(in super::super) fn run<'a>(invocation: &'a Invocation<'a>) -> Pending<'a, Outcome> {
    Box::pin(async move {
        let arguments = invocation.arguments;
        let within =
            |flag: &Flag, default: u64, most: u64| match arguments.number(flag.name)?.unwrap_or(default) {
                number if (1..=most).contains(&number) => Ok(number),
                number => Err(Failure::Usage(format!(
                    "net capture: {} {number}: give a number from 1 to {most}",
                    flag.name
                ))),
            };
        let frames = within(&FRAMES, DEFAULT_FRAMES, MAX_FRAMES)?;
        let seconds = within(&SECONDS, DEFAULT_SECONDS, MAX_SECONDS)?;
        let (name, networks) = (port(invocation)?, networks(invocation)?);
        let capture = Arc::new(Capture::new(frames as usize, networks.time_base()));
        let end = networks.capture(&name, capture.clone())?;
        if !arguments.json() {
            let what =
                format!("capturing {frames} frames of {name}, {seconds} s at most; Ctrl-C gives them up\n");
            invocation.console.print(&what);
        }
        let limit = invocation.system.sleep(Duration::from_secs(seconds));
        select(capture.full(), limit).await;
        drop(end);
        let (frames, file) = capture.take();
        let text = STANDARD.encode(&file);
        let mut report = Report::new();
        if arguments.json() {
            report.push_fields(
                "",
                [
                    ("port", "port", Value::text(&name)),
                    ("frames", "frames", Value::Number(frames as u64)),
                    ("bytes", "bytes", Value::Bytes(file.len() as u64)),
                    ("pcap_base64", "pcap", Value::Text(text)),
                ],
            );
            return Ok(report);
        }
        let mut lines = format!("-----BEGIN PCAP {name}-----\n");
        for line in text.as_bytes().chunks(LINE) {
            lines.push_str(core::str::from_utf8(line).unwrap_or_default());
            lines.push('\n');
        }
        lines.push_str("-----END PCAP-----");
        report.push_remark(lines);
        report.push_remark(format!(
            "{frames} frames; between the two lines is a pcap file, in base64"
        ));
        Ok(report)
    })
}
