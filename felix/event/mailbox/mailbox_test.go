package mailbox

import (
	"testing"

	"github.com/koratnet/korat/felix/event"
)

func TestTheLastEventPerKeyIsKept(t *testing.T) {
	m := New()
	m.Post(event.Set("a", &event.Pod{Name: "old"}), event.Set("b", &event.Pod{Name: "b"}))
	m.Post(event.Set("a", &event.Pod{Name: "new"}))
	m.Post(event.Gone(event.PodKind, "b"))
	got, _ := m.Take()
	if len(got) != 2 || got[0].Value.(*event.Pod).Name != "new" || got[1].Value != nil {
		t.Fatalf("got %+v, want a new and b gone", got)
	}
	if got, _ := m.Take(); len(got) != 0 {
		t.Fatalf("a second Take returned %+v, want nothing", got)
	}
}

func TestReadyYieldsOnceForWhatWaitsAndSyncedTravelsWithIt(t *testing.T) {
	m := New()
	m.Post(event.Set("a", &event.Pod{}))
	m.Synced(event.API)
	<-m.Ready()
	evs, synced := m.Take()
	if len(evs) != 1 || synced != event.API {
		t.Fatalf("got %d events, synced %v; want 1 and API", len(evs), synced)
	}
	select {
	case <-m.Ready():
		t.Fatal("ready although everything was taken")
	default:
	}
	m.Synced(event.CNI)
	<-m.Ready()
	if _, synced := m.Take(); synced != event.CNI {
		t.Fatalf("synced %v, want CNI alone", synced)
	}
}
