package calc_test

import (
	"testing"

	"github.com/koratnet/korat/policy"
)

// The lives of pods and of their addresses. What of a pod's object means anything
// is decided where it is read (felix/watch); the rest of each item is here.

func TestItem21And22APodThatFinishedLeavesSetsWhileItsSandboxStays(t *testing.T) {
	db := pod("a/db", "other", "app=db", "10.0.1.1")
	own := pod("a/web", "me", "app=web")
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), own, db, isolate("a/np", policy.Ingress, "web", apps("a", "db"), apps("a", "web")))
	r.tell(gone(db)) // finished: felix/watch says so
	if got := r.members(apps("a", "db")); got != "" {
		t.Errorf("members %q after the pod finished", got)
	}
	if got := r.chain("kor1", policy.Ingress); got != "np Deny" {
		t.Errorf("chain %q of a pod that runs", got)
	}
	r.tell(gone(own)) // its object goes before its sandbox: terminating, it stays closed
	if got := r.chain("kor1", policy.Ingress); got != "Deny" {
		t.Errorf("chain %q of a sandbox whose pod is gone", got)
	}
	r.tell(gone(endpoint("kor1", "", 0)))
	if got := r.chain("kor1", policy.Ingress); got != "absent" {
		t.Errorf("chain %q after DEL", got)
	}
}

func TestItem23TheAddressOfANewPodCountsBeforeTheAPIServerKnowsIt(t *testing.T) {
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"),
		pod("a/db", "me", "app=db"), isolate("a/np", policy.Ingress, "web", apps("a", "db")))
	r.tell(endpoint("kor2", "a/db", 2, "10.0.0.2"))
	if got := r.members(apps("a", "db")); got != "10.0.0.2" {
		t.Errorf("members %q, want the address that the CNI plugin gave", got)
	}
}

func TestItem24NoSelectorFindsTheAddressOfANodeByItsPods(t *testing.T) {
	all := policy.Scope{Namespace: "a"}
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"),
		node("other", "", "192.168.0.2"), isolate("a/np", policy.Ingress, "web", all))
	if got := r.members(all); got != "10.0.0.1" {
		t.Errorf("members %q, want that of the one pod", got)
	}
}

func TestItem26AnAddressThatMovesIsInTheSetsOfItsNewPod(t *testing.T) {
	db := pod("a/db", "other", "app=db", "10.0.1.1")
	r := ready(t, endpoint("kor1", "a/web", 1, "10.0.0.1"), pod("a/web", "me", "app=web"), db,
		isolate("a/np", policy.Ingress, "web", apps("a", "db"), apps("a", "mail")))
	r.tell(pod("a/mail", "other", "app=mail", "10.0.1.1"), gone(db))
	if dbs, mails := r.members(apps("a", "db")), r.members(apps("a", "mail")); dbs != "" || mails != "10.0.1.1" {
		t.Errorf("members of the former pod's set %q, of the new one's %q", dbs, mails)
	}
}
