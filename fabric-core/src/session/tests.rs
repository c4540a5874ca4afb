//! Properties of sessions: votes are idempotent, undo restores the state, loading returns the saved session.

mod folder;
mod reasons;

use serde_json::json;

use super::*;
use crate::Aspect;
use crate::image::Image;

fn image(shade: u8) -> Image {
    Image::filled(4, 3, [shade, 255 - shade, 7]).unwrap()
}

fn round(session: &mut FeedbackSession, shades: &[u8]) -> Round {
    let images = shades.iter().map(|shade| (image(*shade), session.next_seed())).collect();
    session.push_round(images, json!({"seconds": 0.1 + 0.2, "steps": 20})).unwrap()
}

fn shades(judged: &[Judged]) -> Vec<u8> {
    judged.iter().map(|judged| judged.image.rgb()[0]).collect()
}

/// A session with two rounds, votes of every kind, a changed prompt and undone steps.
fn eventful() -> FeedbackSession {
    let mut session = FeedbackSession::new("a \"red\" star\n✩").with_seed(5).with_negative_prompt("blur");
    let first = round(&mut session, &[1, 2, 3, 4]);
    session.like(&first[0]).unwrap();
    session.vote(&first[1], Vote::dislike(0.1 + 0.2).unwrap().because("its darkness")).unwrap();
    session.set_prompt("a blue star");
    session.set_settings(json!({"steps": 30, "guidance_scale": 7.5}));
    let second = round(&mut session, &[5, 6, 7, 8]);
    session.like(&second[3]).unwrap();
    session.like(&image(99)).unwrap();
    session.neutral(&first[0]);
    session.undo();
    session
}

#[test]
fn the_same_vote_again_changes_nothing() {
    let mut session = FeedbackSession::new("");
    let round = round(&mut session, &[1, 2]);
    session.like(&round[0]).unwrap();
    session.dislike(&round[1]).unwrap();
    let before = session.clone();
    session.like(&round[0]).unwrap();
    session.like(&Image::from_bytes(&round[0].to_png_bytes().unwrap()).unwrap()).unwrap();
    assert_eq!(session, before);
}

#[test]
fn another_vote_replaces_the_old_one() {
    let mut session = FeedbackSession::new("");
    let round = round(&mut session, &[1, 2]);
    session.like(&round[0]).unwrap();
    session.like(&round[1]).unwrap();
    session.vote(&round[0], Vote::like(0.25).unwrap()).unwrap();
    assert_eq!(shades(session.votes()), [2, 1], "the newest last");
    session.dislike(&round[1]).unwrap();
    assert_eq!(session.liked().count(), 1);
    assert_eq!(session.disliked().next().unwrap().vote, Vote::DISLIKE);
    session.neutral(&round[1]);
    assert_eq!(session.votes_on(&round[1]).count(), 0);
    session.vote(&round[0], Vote::new(0.0).unwrap()).unwrap();
    assert_eq!((session.liked().count(), session.disliked().count(), session.votes().len()), (0, 0, 1));
}

#[test]
fn equal_images_are_one_image() {
    let mut session = FeedbackSession::new("");
    let first = round(&mut session, &[1, 1]);
    let second = round(&mut session, &[1]);
    for image in [&first[0], &first[1], &second[0], &image(1)] {
        session.like(image).unwrap();
    }
    assert_eq!(session.liked().count(), 1);
}

#[test]
fn undo_restores_and_redo_repeats_every_step() {
    let last = eventful();
    let mut session = last.clone();
    let mut states = vec![session.state.clone()];
    while session.undo() {
        states.push(session.state.clone());
    }
    assert_eq!((session.rounds().len(), session.votes().len(), session.prompt()), (0, 0, "a \"red\" star\n✩"));
    assert!(!session.undo());
    for state in states.iter().rev().skip(1) {
        assert!(session.redo());
        assert_eq!(session.state, *state);
    }
    assert_eq!(session, last);
    assert!(session.redo(), "the one that was undone before");
    assert!(!session.redo());
}

#[test]
fn a_new_step_ends_what_could_be_redone() {
    let mut session = FeedbackSession::new("");
    let kept = round(&mut session, &[1]);
    let undone = round(&mut session, &[1, 2]);
    session.undo();
    session.like(&kept[0]).unwrap();
    assert!(!session.redo());
    let hashes: Vec<_> = session.images.keys().copied().collect();
    assert_eq!(hashes, [kept[0].content_hash()], "images of undone steps are let go");
    session.like(&undone[1]).unwrap();
    assert_eq!(shades(session.votes()), [1, 2]);
}

#[test]
fn discarded_steps_cannot_be_redone_and_their_images_are_let_go() {
    let mut session = FeedbackSession::new("");
    let kept = round(&mut session, &[1]);
    session.like(&kept[0]).unwrap();
    let undone = round(&mut session, &[1, 2]);
    session.like(&undone[1]).unwrap();
    session.undo_round();
    assert!(session.can_redo());
    let state = session.state.clone();
    session.discard_undone();
    assert_eq!((session.can_redo(), session.redo(), session.step_count()), (false, false, 2));
    assert_eq!(session.state, state);
    let hashes: Vec<_> = session.images.keys().copied().collect();
    assert_eq!(hashes, [kept[0].content_hash()]);
}

#[test]
fn the_report_of_the_last_round_can_be_replaced_and_is_saved() {
    let mut session = FeedbackSession::new("");
    assert!(!session.set_report(json!(1)), "no round");
    let round = round(&mut session, &[1]);
    assert!(session.set_report(json!({"more": 7})));
    assert_eq!((&session.rounds()[0].report, session.step_count()), (&json!({"more": 7}), 1));
    session.like(&round[0]).unwrap();
    assert!(!session.set_report(json!(2)), "a vote came after the round");
    let folder = tempfile::tempdir().unwrap();
    session.save(folder.path()).unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), session);
    // The report survives undo and redo.
    assert!(session.undo_round() && session.redo());
    assert_eq!(session.rounds()[0].report, json!({"more": 7}));
}

#[test]
fn rounds_remember_how_they_were_made() {
    let session = eventful();
    let [first, second] = session.rounds() else { panic!("two rounds") };
    assert_eq!((first.index, first.prompt.as_str(), &first.settings), (0, "a \"red\" star\n✩", &Value::Null));
    assert_eq!((second.index, second.prompt.as_str()), (1, "a blue star"));
    assert_eq!(second.settings["steps"], 30);
    assert_eq!((second.negative_prompt.as_str(), second.len(), second.is_empty()), ("blur", 4, false));
    assert!(first.unix_ms > 0 && second.unix_ms >= first.unix_ms);
    assert_eq!(second.contact_sheet().unwrap().height(), 3 + 16);
    assert_eq!(session.contact_sheet().unwrap().height(), 2 * 3 + 24);
}

#[test]
fn strengths_beyond_their_range_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, 1.0 + 1e-9, -1.5] {
        assert!(Vote::new(bad).is_err() && Vote::like(bad).is_err() && Vote::dislike(bad).is_err(), "{bad}");
    }
    assert!(Vote::like(-0.5).is_err());
    assert_eq!(Vote::new(-1.0).unwrap(), Vote::DISLIKE);
    assert_eq!(Vote::like(1.0).unwrap(), Vote::LIKE);
    assert!(Vote::dislike(0.0).unwrap().strength().is_sign_positive());
}

#[test]
fn seeds_go_on_where_they_were() {
    let mut session = FeedbackSession::new("").with_seed(7);
    let seeds: Vec<u64> = (0..20).map(|_| session.next_seed()).collect();
    assert_eq!(seeds[..3], [601_310_139, 677_729_076, 781_920_570], "frozen");
    assert!(seeds.iter().all(|seed| *seed < 1 << 32));
    let mut again = FeedbackSession::new("other").with_seed(7);
    assert_eq!((0..20).map(|_| again.next_seed()).collect::<Vec<_>>(), seeds);
    let folder = tempfile::tempdir().unwrap();
    session.save(folder.path()).unwrap();
    let mut loaded = FeedbackSession::load(folder.path()).unwrap();
    assert_eq!([loaded.next_seed(), loaded.next_seed()], [session.next_seed(), session.next_seed()]);
    assert_ne!(FeedbackSession::new("").seed(), FeedbackSession::new("").seed());
}

#[test]
fn a_balanced_cap_is_the_published_demo_without_its_slip() {
    let keep = |likes: usize, dislikes: usize, policy: KeepPolicy| {
        let mut session = FeedbackSession::new("");
        for index in 0..likes.max(dislikes) {
            for (count, vote, shade) in [(likes, Vote::LIKE, 100), (dislikes, Vote::DISLIKE, 200)] {
                if index < count {
                    session.vote(&image(shade + index as u8), vote).unwrap();
                }
            }
        }
        let feedback = session.feedback(policy);
        (shades(&feedback.liked), shades(&feedback.disliked))
    };
    assert_eq!(keep(3, 3, KeepPolicy::Balanced(6)), (vec![100, 101, 102], vec![200, 201, 202]));
    assert_eq!(keep(5, 5, KeepPolicy::Balanced(6)), (vec![102, 103, 104], vec![202, 203, 204]));
    assert_eq!(keep(9, 1, KeepPolicy::Balanced(6)), (vec![104, 105, 106, 107, 108], vec![200]));
    assert_eq!(keep(1, 9, KeepPolicy::Balanced(6)), (vec![100], vec![206, 207, 208]));
    assert_eq!(keep(8, 0, KeepPolicy::Balanced(6)).0, [102, 103, 104, 105, 106, 107]);
    assert_eq!(keep(0, 8, KeepPolicy::Balanced(6)).1, [202, 203, 204, 205, 206, 207]);
    // The published slice `[-0:]` would keep all three dislikes here, and everything with a cap of 0.
    assert_eq!(keep(3, 3, KeepPolicy::Balanced(1)), (vec![102], vec![]));
    assert_eq!(keep(3, 3, KeepPolicy::Balanced(0)), (vec![], vec![]));
    assert_eq!(keep(2, 3, KeepPolicy::MostRecent(2)), (vec![], vec![201, 202]));
    assert_eq!(keep(3, 3, KeepPolicy::MostRecent(3)), (vec![102], vec![201, 202]));
    assert_eq!(keep(9, 9, KeepPolicy::All).0.len(), 9);
}

#[test]
fn the_best_is_liked_and_the_worst_disliked() {
    let mut session = FeedbackSession::new("");
    let score = |_: &Round, image: &Image| Ok(f64::from(image.rgb()[0]));
    assert!(matches!(session.judge_with(&mut BestAndWorst::new(score)), Err(Error::Session(SessionError::NoRound))));
    round(&mut session, &[5, 9, 1, 9]);
    session.judge_with(&mut BestAndWorst::new(score)).unwrap();
    let feedback = session.feedback(KeepPolicy::All);
    assert_eq!((shades(&feedback.liked), shades(&feedback.disliked)), (vec![9], vec![1]));
    // An image that is the best and the worst has neither vote.
    for shades in [&[50][..], &[60, 60, 60]] {
        let tied = round(&mut session, shades);
        session.judge_with(&mut BestAndWorst::new(score)).unwrap();
        assert_eq!(session.votes_on(&tied[0]).count(), 0);
    }
}

#[test]
fn a_source_that_fails_casts_no_vote() {
    struct Beyond;
    impl FeedbackSource for Beyond {
        fn judge(&mut self, round: &Round) -> Result<Vec<(usize, Vote)>, Error> {
            Ok(vec![(0, Vote::LIKE), (round.len(), Vote::LIKE)])
        }
    }
    let mut session = FeedbackSession::new("");
    round(&mut session, &[1, 2]);
    let got = session.judge_with(&mut Beyond).unwrap_err();
    assert!(matches!(got, Error::Session(SessionError::NoSuchImage { index: 2, got: 2 })), "{got}");
    struct Unclear;
    impl FeedbackSource for Unclear {
        fn judge(&mut self, _: &Round) -> Result<Vec<(usize, Vote)>, Error> {
            Ok(vec![(0, Vote::LIKE), (1, Vote::LIKE.because(""))])
        }
    }
    assert!(session.judge_with(&mut Unclear).is_err());
    let got = session.judge_with(&mut BestAndWorst::new(|_, _| Ok(f64::NAN))).unwrap_err();
    assert!(matches!(got, Error::Session(SessionError::Score { index: 0, .. })), "{got}");
    assert_eq!(session.votes(), []);
}

#[test]
fn a_session_has_room_for_so_many_pixels() {
    let mut session = FeedbackSession::new("");
    assert!(matches!(session.push_round(Vec::new(), Value::Null), Err(SessionError::EmptyRound)));
    let old = BTreeMap::from([(image(1).content_hash(), image(1))]);
    let new = [image(1), image(2), image(2), image(3)];
    // Three different images of 12 pixels.
    assert!(check_room(&old, &new, 36).is_ok());
    let got = check_room(&old, &new, 35).unwrap_err();
    assert!(matches!(got, SessionError::Full { got: 36, expected: 35 }), "{got}");
}

#[test]
fn votes_are_replayed_as_they_were_cast() {
    let mut session = FeedbackSession::new("");
    let mut state = 1_u32;
    let mut draw = |count: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % count
    };
    let mut most = 0;
    for _ in 0..300 {
        let image = image(draw(3) as u8);
        let vote = Vote::new([-1.0, -0.5, 0.0, 0.5, 1.0][draw(5) as usize]).unwrap();
        let vote = match draw(4) {
            0 => vote,
            1 => vote.because(Aspect::Style),
            2 => vote.because(Aspect::Colour),
            _ => vote.because("its light"),
        };
        if draw(5) == 0 {
            session.neutral(&image);
        } else {
            session.vote(&image, vote).unwrap();
        }
        let mut replayed = session.clone();
        replayed.replay();
        assert_eq!(replayed.state, session.state, "after {} steps", session.step_count());
        most = most.max(session.votes().len());
    }
    assert!(most > 3 && session.step_count() > 100, "{most} votes, {} steps", session.step_count());
}

#[test]
fn a_hundred_thousand_votes_are_replayed_in_one_go() {
    let mut session = FeedbackSession::new("");
    session.like(&image(1)).unwrap();
    let because = |at: u64| Vote::LIKE.because(format!("reason {at}"));
    let hash = image(1).content_hash();
    let vote = |at| Step::Vote { unix_ms: at, image: hash, vote: Some(because(at)) };
    session.steps = (0..100_000).map(vote).collect();
    session.done = session.steps.len();
    session.replay();
    assert_eq!((session.votes().len(), &session.votes()[7].vote), (100_000, &because(7)));
}

#[test]
fn undone_images_make_room() {
    let mut session = FeedbackSession::new("");
    let first = round(&mut session, &[1, 2]);
    round(&mut session, &[3, 4]);
    // Four images of 12 pixels, and two more.
    let new = [image(5), image(6)];
    assert!(matches!(session.check_room(&new, 71), Err(SessionError::Full { got: 72, expected: 71 })));
    session.undo();
    assert!(session.check_room(&new, 48).is_ok());
    assert!(matches!(session.check_room(&new, 47), Err(SessionError::Full { got: 48, expected: 47 })));
    session.like(&first[0]).unwrap();
    assert!(session.check_room(&new, 48).is_ok());
}

#[test]
fn room_for_a_round_is_known_before_it_is_made() {
    let mut session = FeedbackSession::new("");
    let most = MAX_SESSION_PIXELS / (512 * 512);
    assert!(session.check_room_for(most, 512, 512).is_ok());
    assert!(matches!(session.check_room_for(most + 1, 512, 512), Err(SessionError::Full { .. })));
    assert!(matches!(session.check_room_for(usize::MAX, usize::MAX, 2), Err(SessionError::Full { .. })));
    let big = Image::filled(512, 512, [1, 2, 3]).unwrap();
    session.push_round(vec![(big, 1)], Value::Null).unwrap();
    assert!(matches!(session.check_room_for(most, 512, 512), Err(SessionError::Full { .. })));
    session.undo();
    assert!(session.check_room_for(most, 512, 512).is_ok());
}

#[test]
fn undoing_a_round_takes_its_votes_with_it_and_can_be_redone() {
    let mut session = eventful();
    let whole = session.clone();
    assert_eq!((session.rounds().len(), session.votes().len()), (2, 4));
    assert!(session.undo_round());
    assert_eq!((session.rounds().len(), session.votes().len(), session.prompt()), (1, 2, "a blue star"));
    assert!(session.undo_round());
    assert_eq!((session.rounds().len(), session.votes().len(), session.step_count()), (0, 0, 0));
    assert!(!session.undo_round());
    while session.step_count() < whole.step_count() {
        assert!(session.redo());
    }
    assert_eq!(session, whole);
}

#[test]
fn images_that_were_not_generated_are_a_round_without_seeds() {
    let mut session = FeedbackSession::new("a star").with_seed(3);
    let candidates = session.push_candidates(vec![image(1), image(2)], json!({"corpus": "stars"})).unwrap();
    assert_eq!((candidates.len(), candidates.seeds.len(), &candidates.settings), (2, 0, &Value::Null));
    session.like(&candidates[1]).unwrap();
    let made = round(&mut session, &[3]);
    assert_eq!((made.index, made.seeds.len()), (1, 1));
    assert!(matches!(session.push_candidates(Vec::new(), Value::Null), Err(SessionError::EmptyRound)));
    let folder = tempfile::tempdir().unwrap();
    session.save(folder.path()).unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), session);
}
