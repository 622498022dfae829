//! Quotas of hosts and bounds of the pool: nobody fails who can wait.

use tokio_util::sync::CancellationToken;

use super::*;

/// Runs `commands` commands by each of `callers`, all at a time. All must succeed.
async fn many(pool: &Pool, host: &Arc<Host>, callers: usize, commands: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (pool, host) = (pool.clone(), Arc::clone(host));
        tasks.spawn(async move {
            for _ in 0..commands {
                let deadline = Instant::now() + Duration::from_secs(600);
                let mut lease = pool.lease(&host.target(PASSWORD), deadline).await.unwrap();
                assert_eq!(run(&mut lease, &invocation("slow")).await.unwrap().0, "12slow");
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_gives_fewer_shells_than_we_may_ask_for_fails_nobody() {
    let host = Arc::new(Host::in_memory());
    host.state().quota_shells = Some(3);
    let pool = Pool::new(PoolSettings { max_shells_per_user: 20, ..PoolSettings::default() });
    many(&pool, &host, 40, 20).await;
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert_eq!((state.most_shells, state.count("Command"), state.shells.len()), (3, 800, 0));
    // Having learnt it, the pool asks for little more.
    assert!(state.refusals > 0 && state.refusals < 80, "{}", state.refusals);
    assert!(pool.statistics().backoffs_total >= state.refusals as u64);
}

#[tokio::test(start_paused = true)]
async fn all_shells_of_a_user_taken_by_others_are_waited_for() {
    let host = Arc::new(Host::in_memory());
    host.state().quota_shells = Some(0);
    let pool = Pool::new(PoolSettings::default());
    let target = host.target(PASSWORD);
    let error = pool.lease(&target, soon()).await.unwrap_err();
    assert_eq!(error.code(), "fault.2150859173");
    assert!((3..10).contains(&host.state().refusals), "{}", host.state().refusals);
    let (lease, ()) = tokio::join!(pool.lease(&target, soon()), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        host.state().quota_shells = Some(1);
    });
    run(&mut lease.unwrap(), &invocation("x")).await.unwrap();
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_bound_that_a_host_taught_grows_again() {
    let host = Arc::new(Host::in_memory());
    host.state().quota_shells = Some(1);
    let pool = Pool::new(PoolSettings { max_shells_per_user: 4, ..PoolSettings::default() });
    many(&pool, &host, 4, 2).await;
    assert_eq!(host.state().most_shells, 1);
    host.state().quota_shells = None;
    tokio::time::sleep(Duration::from_secs(300)).await;
    many(&pool, &host, 4, 2).await;
    assert_eq!(host.state().most_shells, 4);
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_operations_of_a_user_stay_within_their_budget() {
    let host = Arc::new(Host::in_memory());
    // Windows gives 1,500 and the pool takes 1,000 of them.
    host.state().quota_commands = Some(150);
    let settings = PoolSettings { commands_per_user: 100, commands_per_shell: 80, ..PoolSettings::default() };
    let pool = Pool::new(settings);
    many(&pool, &host, 30, 40).await;
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert_eq!((state.refusals, state.count("Command"), state.shells.len()), (0, 1200, 0));
    // Budget / 2 / shells: no shell is replaced before it took its part.
    assert!(state.count("Create") <= 1200 / 5 + 10, "{}", state.count("Create"));
}

#[tokio::test(start_paused = true)]
async fn operations_that_others_use_up_are_waited_for() {
    let host = Arc::new(Host::in_memory());
    host.state().quota_commands = Some(12);
    let pool = Pool::new(PoolSettings::default());
    many(&pool, &host, 8, 20).await;
    assert_eq!(pool.close(soon()).await, 0);
    let state = host.state();
    assert!(state.refusals > 0);
    // Each refused Command is one more request, and none of them started anything.
    assert_eq!((state.count("Command") - state.refusals, state.shells.len()), (160, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_does_not_wait_for_a_host_that_puts_off() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let target = host.target(PASSWORD);
    host.state().quota_commands = Some(0);
    for (until, given_up_after) in [(2, 100), (100, 2)] {
        let mut lease = pool.lease(&target, soon()).await.unwrap();
        let (begin, given_up) = (Instant::now(), CancellationToken::new());
        let patience = Patience { until: begin + Duration::from_secs(until), given_up: given_up.clone() };
        let invocation = invocation("x");
        let giving_up = async {
            tokio::time::sleep(Duration::from_secs(given_up_after)).await;
            given_up.cancel();
            std::future::pending::<()>().await;
        };
        let mut ledger = ();
        let error = tokio::select! {
            started = lease.start_patiently(&invocation, Uuid::new_v4(), patience, &mut ledger) => started.unwrap_err(),
            () = giving_up => unreachable!(),
        };
        assert_eq!((error.code(), error.may_have_started()), ("fault.2150859174", false));
        assert!((2..5).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
        // Nothing is in doubt.
        host.state().quota_commands = None;
        run(&mut lease, &invocation).await.unwrap();
        host.state().quota_commands = Some(0);
    }
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_host_has_a_bound_over_all_its_users() {
    let host = Arc::new(Host::in_memory());
    let pool = Pool::new(PoolSettings { max_shells_per_user: 3, max_shells_per_host: 4, ..PoolSettings::default() });
    let mut tasks = tokio::task::JoinSet::new();
    for user in ["alice", "ALICE", "alice"] {
        for _ in 0..5 {
            let (pool, mut target) = (pool.clone(), host.target(PASSWORD));
            // The simulated host knows one user; the pool tells users apart by name, without case.
            target.shell.environment.insert("FOR".into(), user.into());
            tasks.spawn(async move {
                let mut lease = pool.lease(&target, soon() + Duration::from_secs(60)).await.unwrap();
                run(&mut lease, &invocation("slow")).await.unwrap();
            });
        }
    }
    tasks.join_all().await;
    assert!(host.state().most_shells <= 3, "{}", host.state().most_shells);
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_starting_is_waited_for() {
    let host = Host::in_memory();
    let pool = Pool::new(PoolSettings::default());
    let target = host.target(PASSWORD);
    host.state().starting = 4;
    let mut lease = pool.lease(&target, soon() + Duration::from_secs(20)).await.unwrap();
    run(&mut lease, &invocation("x")).await.unwrap();
    drop(lease);
    // Not for ever.
    host.state().starting = 1000;
    let mut other = target.clone();
    other.shell.no_profile = true;
    let error = pool.lease(&other, soon()).await.unwrap_err();
    assert_eq!((error.stage(), error.code()), (Stage::OpenShell, "http.unavailable"));
}

#[tokio::test(start_paused = true)]
async fn whoever_was_put_off_keeps_the_place_in_the_queue() {
    let host = Arc::new(Host::in_memory());
    host.state().quota_shells = Some(0);
    let pool = Pool::new(PoolSettings { max_shells_per_user: 1, ..PoolSettings::default() });
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..6 {
        let (pool, target, order) = (pool.clone(), host.target(PASSWORD), Arc::clone(&order));
        tasks.spawn(async move {
            let mut lease = pool.lease(&target, soon() + Duration::from_secs(60)).await.unwrap();
            order.lock().unwrap().push(caller);
            run(&mut lease, &invocation("slow")).await.unwrap();
        });
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    host.state().quota_shells = None;
    tasks.join_all().await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(pool.close(soon()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_spent_shell_is_deleted_though_its_connection_breaks() {
    // Once: over another connection. More often: the command does not start, and the shell goes in the background.
    for cuts in [1, 3] {
        let host = Host::in_memory();
        let pool = Pool::new(PoolSettings { commands_per_shell: 1, ..PoolSettings::default() });
        let mut lease = pool.lease(&host.target(PASSWORD), soon()).await.unwrap();
        run(&mut lease, &invocation("x")).await.unwrap();
        host.state().cut_deletes = cuts;
        let result = run(&mut lease, &invocation("x")).await;
        assert_eq!(result.is_ok(), cuts == 1, "{result:?}");
        assert!(!result.is_err_and(|error| error.may_have_started()));
        drop(lease);
        assert_eq!(pool.close(Instant::now() + Duration::from_secs(60)).await, 0);
        let state = host.state();
        assert_eq!((state.shells.len(), state.cut_deletes), (0, 0), "{:?}", state.actions);
    }
}
