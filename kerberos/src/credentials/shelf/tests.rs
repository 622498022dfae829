use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::ccache::{decode, tests::sample};

const SOON: Duration = Duration::from_secs(5);

/// A ticket that is good for so many seconds from now.
fn ticket(seconds: i64) -> Arc<Credentials> {
    let mut ticket = decode(&sample(9)).unwrap().credentials().next().unwrap();
    ticket.endtime = unix_now() + seconds;
    Arc::new(ticket)
}

fn failure() -> Error {
    catalogue::stopped()
}

#[test]
fn a_ticket_is_fetched_again_before_it_ends() {
    let held = Held { ticket: ticket(0), refresh_at: 0 };
    let end = held.ticket.endtime;
    let day = Held { refresh_at: end - 20_000, ..held.clone() };
    assert_eq!(plan(None, end), Plan::Fetch);
    assert_eq!(plan(Some(&day), end - 20_001), Plan::Use);
    assert_eq!(plan(Some(&day), end - 20_000), Plan::UseAndFetch);
    assert_eq!(plan(Some(&day), end - MARGIN - 1), Plan::UseAndFetch);
    assert_eq!(plan(Some(&day), end - MARGIN), Plan::FetchElseUse);
    assert_eq!(plan(Some(&day), end - 1), Plan::FetchElseUse);
    assert_eq!(plan(Some(&day), end), Plan::Fetch);
    // A ticket that never had much more than the margin is not always on its last legs.
    let short = Held { refresh_at: end - 5, ..held };
    assert_eq!(plan(Some(&short), end - 20), Plan::Use);
    assert_eq!(plan(Some(&short), end - 4), Plan::UseAndFetch);
    assert_eq!(plan(Some(&short), end), Plan::Fetch);
}

#[test]
fn what_counts_is_what_is_left_of_its_life() {
    let ticket = ticket(1000);
    let now = unix_now();
    assert_eq!(Held::new(ticket.clone(), now, 80).refresh_at, now + (ticket.endtime - now) * 80 / 100);
    for _ in 0..1000 {
        assert!(REFRESH.contains(&random_percent()));
    }
    for (left, most) in [(-5, 1), (0, 1), (80, 10), (100_000, 60)] {
        let again = again_after(left);
        assert!(again >= Duration::from_millis(most * 500) && again <= Duration::from_secs(most), "{left} {again:?}");
    }
}

#[tokio::test]
async fn many_wait_for_one_flight() {
    let (shelf, flights) = (Arc::new(Shelf::new(10)), Arc::new(Flights::default()));
    let (begun, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut waiters = JoinSet::new();
    for _ in 0..100 {
        let (shelf, weak, begun, go) = (shelf.clone(), Arc::downgrade(&flights), begun.clone(), go.clone());
        waiters.spawn(async move {
            shelf
                .obtain(&weak, &"key", Instant::now() + SOON, move |held| async move {
                    assert!(held.is_none());
                    begun.fetch_add(1, Ordering::Relaxed);
                    go.notified().await;
                    Ok(ticket(1000))
                })
                .await
        });
    }
    tokio::task::yield_now().await;
    go.notify_one();
    let tickets: Vec<_> = waiters.join_all().await.into_iter().map(Result::unwrap).collect();
    assert!(tickets.iter().all(|ticket| Arc::ptr_eq(ticket, &tickets[0])));
    assert_eq!(begun.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_failed_flight_harms_nobody_whose_ticket_is_good() {
    let (shelf, flights) = (Arc::new(Shelf::new(10)), Arc::new(Flights::default()));
    let weak = Arc::downgrade(&flights);
    let first = shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { Ok(ticket(20)) }).await.unwrap();
    // Its time to be fetched again has come, and even that it has nearly ended.
    for refresh_at in [0, first.endtime - 19] {
        shelf.lock().get_mut(&1).unwrap().held.as_mut().unwrap().refresh_at = refresh_at;
        shelf.lock().get_mut(&1).unwrap().wait_until = None;
        let again = shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { Err(failure()) }).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
    }
    // Once it has ended, the failure is what there is.
    let ended = Held { ticket: ticket(-1), refresh_at: 0 };
    shelf.lock().get_mut(&1).unwrap().held = Some(ended);
    assert!(shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { Err(failure()) }).await.is_err());
}

#[tokio::test]
async fn what_was_forgotten_meanwhile_is_not_kept() {
    let (shelf, flights) = (Arc::new(Shelf::new(10)), Arc::new(Flights::default()));
    let weak = Arc::downgrade(&flights);
    let forgetful = {
        let shelf = shelf.clone();
        move |_| async move {
            shelf.forget(|_| true);
            Ok(ticket(1000))
        }
    };
    let old = shelf.obtain(&weak, &1, Instant::now() + SOON, forgetful).await.unwrap();
    let new = shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { Ok(ticket(1000)) }).await.unwrap();
    assert!(!Arc::ptr_eq(&old, &new));
    shelf.discard(&1, &old);
    let kept = shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { Err(failure()) }).await.unwrap();
    assert!(Arc::ptr_eq(&kept, &new));
    shelf.discard(&1, &new);
    assert!(shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { Err(failure()) }).await.is_err());
}

#[tokio::test]
async fn the_least_recently_used_go_first_and_their_number_is_bounded() {
    let (shelf, flights) = (Arc::new(Shelf::new(20)), Arc::new(Flights::default()));
    let weak = Arc::downgrade(&flights);
    let get = async |key: usize| {
        shelf.obtain(&weak, &key, Instant::now() + SOON, |_| async { Ok(ticket(1000)) }).await.unwrap()
    };
    let first = get(0).await;
    for key in 1..200 {
        get(key).await;
        assert!(Arc::ptr_eq(&first, &get(0).await), "used all the time");
        assert!(shelf.lock().len() <= 20);
    }
}

#[tokio::test]
async fn a_panicking_flight_and_an_ended_manager_leave_nobody_waiting() {
    let (shelf, flights) = (Arc::new(Shelf::new(20)), Arc::new(Flights::default()));
    let weak = Arc::downgrade(&flights);
    let error =
        shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { unreachable!("on purpose") }).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.stopped");
    shelf.obtain(&weak, &1, Instant::now() + SOON, |_| async { Ok(ticket(1000)) }).await.unwrap();
    drop(flights);
    let error = shelf.obtain(&weak, &2, Instant::now() + SOON, |_| async { Ok(ticket(1000)) }).await.unwrap_err();
    assert_eq!(error.code(), "kerberos.stopped");
}
