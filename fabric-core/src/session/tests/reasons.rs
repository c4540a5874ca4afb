//! Votes with reasons, images that steer a session, and their undoing.

use super::*;
use crate::{Aspect, ImageCondition};

#[test]
fn reasons_images_and_masks_are_steps_that_are_saved_and_undone() {
    let folder = tempfile::tempdir().unwrap();
    let image = |at: u8| Image::filled(8, 8, [at, 0, 0]).unwrap();
    let mut session = FeedbackSession::new("a star").with_seed(1);
    session.like(&image(1)).unwrap().because(Aspect::Style).unwrap();
    assert_eq!(session.step_count(), 1, "vote and reason are one step");
    assert_eq!(session.votes_on(&image(1)).next().unwrap().reason(), Some(&Aspect::Style));
    session.dislike(&image(2)).unwrap().because("its dark background").unwrap();
    let condition = ImageCondition::new(image(3)).using("the colour").with_scale(0.6);
    session.add_image_condition(condition.clone()).unwrap();
    session.add_image_condition(ImageCondition::new(image(3)).away()).unwrap();
    let init = InitImage { image: image(4), strength: 0.7, mask: Some(image(5)) };
    session.set_init_image(Some(init.clone())).unwrap();
    session.set_init_image(Some(init.clone())).unwrap();
    assert_eq!(session.step_count(), 5, "setting the same again is no step");

    session.save(folder.path()).unwrap();
    let loaded = FeedbackSession::load(folder.path()).unwrap();
    assert_eq!(loaded, session);
    assert_eq!((loaded.image_conditions().len(), &loaded.image_conditions()[0]), (2, &condition));
    assert_eq!(loaded.init_image(), Some(&init));

    assert!(session.undo() && session.init_image().is_none());
    assert!(session.undo() && session.image_conditions() == [condition]);
    assert!(session.redo() && session.image_conditions().len() == 2);
    // Repeating a vote with its reason changes nothing.
    let before = session.clone();
    session.dislike(&image(2)).unwrap().because("the light").unwrap();
    assert_eq!(session.step_count(), before.step_count() + 1);
    let before = session.clone();
    session.dislike(&image(2)).unwrap().because("the light").unwrap();
    assert_eq!(session, before);
}

#[test]
fn an_image_has_several_votes_with_different_reasons() {
    let image = image(1);
    let reasons = |session: &FeedbackSession| -> Vec<(f64, Option<Aspect>)> {
        session.votes_on(&image).map(|vote| (vote.strength(), vote.reason().cloned())).collect()
    };
    let mut session = FeedbackSession::new("");
    session.like(&image).unwrap().because(Aspect::Style).unwrap();
    session.dislike(&image).unwrap().because(Aspect::Background).unwrap();
    assert_eq!(reasons(&session), [(1.0, Some(Aspect::Style)), (-1.0, Some(Aspect::Background))]);
    assert_eq!((session.step_count(), session.liked().count(), session.disliked().count()), (2, 1, 1));
    assert_eq!(session.feedback(KeepPolicy::All), Feedback::default(), "no references");

    // The same reason again, in the other direction: the later vote counts.
    session.dislike(&image).unwrap().because(Aspect::Style).unwrap();
    assert_eq!(reasons(&session), [(-1.0, Some(Aspect::Background)), (-1.0, Some(Aspect::Style))]);

    // A vote without a reason is about the whole image.
    session.like(&image).unwrap();
    assert_eq!(reasons(&session), [(1.0, None)]);

    // A reason against a part of it leaves the like; a reason for the like refines it.
    session.dislike(&image).unwrap().because(Aspect::Background).unwrap();
    assert_eq!(reasons(&session), [(1.0, None), (-1.0, Some(Aspect::Background))]);
    session.vote(&image, Vote::like(0.5).unwrap().because(Aspect::Colour)).unwrap();
    assert_eq!(reasons(&session), [(-1.0, Some(Aspect::Background)), (0.5, Some(Aspect::Colour))]);

    let folder = tempfile::tempdir().unwrap();
    session.save(folder.path()).unwrap();
    assert_eq!(FeedbackSession::load(folder.path()).unwrap(), session);
    session.neutral(&image);
    assert_eq!(reasons(&session), []);
    assert!(session.undo() && reasons(&session).len() == 2);
}

#[test]
fn a_neutral_vote_with_a_reason_leaves_the_like() {
    let mut session = FeedbackSession::new("");
    session.like(&image(1)).unwrap();
    session.vote(&image(1), Vote::new(0.0).unwrap().because(Aspect::Background)).unwrap();
    assert!(session.votes_on(&image(1)).any(|vote| *vote == Vote::LIKE));
    session.vote(&image(1), Vote::dislike(1e-200).unwrap().because(Aspect::Style)).unwrap();
    assert_eq!(session.votes_on(&image(1)).count(), 3);
}

#[test]
fn repeating_a_vote_with_its_reason_leaves_what_can_be_redone() {
    let mut session = FeedbackSession::new("");
    session.like(&image(1)).unwrap().because(Aspect::Style).unwrap();
    session.like(&image(2)).unwrap();
    session.undo();
    let before = session.clone();
    session.like(&image(1)).unwrap().because(Aspect::Style).unwrap();
    assert_eq!(session, before);
    assert!(session.redo() && session.liked().count() == 2);
    // Another reason is a new step, which ends what can be redone.
    session.undo();
    session.like(&image(1)).unwrap().because(Aspect::Colour).unwrap();
    assert!(!session.redo() && session.votes_on(&image(1)).count() == 2);
}

#[test]
fn reasons_and_scales_that_cannot_be_used_are_refused_and_change_nothing() {
    let image = Image::filled(8, 8, [1, 0, 0]).unwrap();
    let mut session = FeedbackSession::new("a star");
    for words in [String::new(), "x".repeat(10 << 20)] {
        let error = session.like(&image).unwrap().because(&*words).unwrap_err().to_string();
        assert!(error.starts_with("aspect of an image: expected words of 1 to 1000 bytes, got"), "{error:.200}");
        assert!(session.vote(&image, Vote::DISLIKE.because(&*words)).is_err());
        assert!(session.votes_on(&image).eq([&Vote::LIKE]));
    }
    for scale in [-1.0, f64::NAN, f64::INFINITY] {
        let error = session.add_image_condition(ImageCondition::new(image.clone()).with_scale(scale)).unwrap_err();
        assert!(error.to_string().starts_with("scale of an image condition: expected"), "{error}");
    }
    let error = session.set_init_image(Some(InitImage { image, strength: 1.5, mask: None })).unwrap_err().to_string();
    assert!(error.starts_with("init_image.strength: expected"), "{error}");
    assert_eq!(session.step_count(), 1);
}
