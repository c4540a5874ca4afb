//! The memory of a server that runs for long. The test has a process of its own, because other tests would change the
//! memory of the process.

#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "this test does not use all of it")]
#[path = "studio/harness.rs"]
mod harness;

use std::fs;

use serde_json::json;

use crate::harness::{Server, images};

/// Sessions of the test. A third of them are more than the 16 that a studio keeps in memory.
const SESSIONS: u64 = 50;

/// Rounds of a session, 200 in all.
const ROUNDS: usize = 4;

/// Votes on the image of a round, 1000 in all. Each replaces the one before.
const VOTES: [f64; 5] = [1.0, -1.0, 0.25, -0.5, 1.0];

/// Largest growth of the memory after a third of the sessions, in bytes. The images of all rounds have less than 3 MB.
const MOST_GROWTH: u64 = 64 << 20;

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the resident memory");
    let kilobytes: u64 = value.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

/// A session grows with its history, so the 1000 votes and 200 rounds are spread over 50 sessions of four rounds each,
/// and memory is measured after a third of them and at the end. A round has one image of the shipped model, in one step
/// and with up to three references. This takes about 20 s on two cores, of which a good part goes to saving: every vote
/// and every round is on disk before it is answered.
#[tokio::test]
async fn a_thousand_votes_and_two_hundred_rounds_leave_the_memory_as_it_was() {
    let server = Server::new();
    let fabric = json!({"start": 0.0, "end": 1.0, "max_weight": 0.8});
    let settings = json!({"steps": 1, "fabric": fabric});
    let mut warm = 0;
    for number in 0..SESSIONS {
        let body = json!({"prompt": "a red star", "seed": number, "settings": settings});
        let path = server.session_with(body).await;
        for round in 0..ROUNDS {
            let session = server.round(&path, 1).await;
            let image = &images(&session, round)[0];
            // The last vote decides: liked and disliked images take turns.
            let side = if round % 2 == 0 { 1.0 } else { -1.0 };
            for strength in VOTES {
                let vote = json!({"image": image, "strength": side * strength});
                server.post(&format!("{path}/votes"), vote).await.expect(200);
            }
        }
        if number == SESSIONS / 3 {
            warm = resident();
        }
    }
    let listed = server.get("/api/sessions").await.expect(200);
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(SESSIONS as usize));
    let end = resident();
    assert!(end < warm + MOST_GROWTH, "{warm} bytes after a third, {end} bytes at the end");
}
