package calico

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	sigsjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	v1 "github.com/koratnet/korat/api/v1"
)

// examples are objects of all kinds that are converted, with all their fields.
func examples(t testing.TB) []Object {
	t.Helper()
	text, err := os.ReadFile("testdata/examples.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []Object
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		raw, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, parse(t, raw))
	}
	return out
}

func parse(t testing.TB, raw []byte) Object {
	t.Helper()
	var o Object
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(raw, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestResultsAreOfOurAPI decodes what was converted into the types of the API,
// of which every field must be one.
func TestResultsAreOfOurAPI(t *testing.T) {
	types := map[string]func() any{
		"NetworkPolicy": func() any { return &v1.NetworkPolicy{} }, "GlobalNetworkPolicy": func() any { return &v1.GlobalNetworkPolicy{} },
		"Tier": func() any { return &v1.Tier{} }, "NetworkSet": func() any { return &v1.NetworkSet{} }, "GlobalNetworkSet": func() any { return &v1.GlobalNetworkSet{} },
		"HostEndpoint": func() any { return &v1.HostEndpoint{} }, "IPPool": func() any { return &v1.IPPool{} },
		"BGPConfiguration": func() any { return &v1.BGPConfiguration{} }, "BGPPeer": func() any { return &v1.BGPPeer{} },
		"BGPFilter": func() any { return &v1.BGPFilter{} },
	}
	seen := map[string]bool{}
	for _, o := range examples(t) {
		out, losses := Convert(o)
		if out == nil {
			t.Errorf("%v is not converted: %+v", o["kind"], losses)
			continue
		}
		kind := out["kind"].(string)
		seen[kind] = true
		strict, err := sigsjson.UnmarshalStrict([]byte(asJSON(t, out)), types[kind]())
		if err != nil || len(strict) > 0 {
			t.Errorf("%s: %v %v\n%s", kind, strict, err, asJSON(t, out))
		}
	}
	if len(seen) != len(types) {
		t.Errorf("the examples become %v, expected every kind", seen)
	}
}

// TestNoFieldIsDroppedInSilence adds a field that nobody knows at every place of
// every example. It must be told, or stand in the result, where the API server
// refuses it.
func TestNoFieldIsDroppedInSilence(t *testing.T) {
	places := 0
	for _, o := range examples(t) {
		for i := 0; ; i++ {
			changed := deepCopy(o).(Object)
			n := i
			path, ok := insert(changed, "", &n)
			if !ok {
				break
			}
			places++
			out, losses := Convert(changed)
			told := ""
			for _, l := range losses {
				told += l.Field + " " + l.Value + "\n"
			}
			if !strings.Contains(told+asJSON(t, out), "unheard") {
				t.Errorf("%s: a field at %s is dropped in silence; told is\n%s", o["kind"], path, told)
			}
			if strings.Contains(path, "gress[") && !strings.Contains(asJSON(t, out), "unheard") {
				narrower(t, path, o, out)
			}
		}
	}
	if places < 50 {
		t.Errorf("only %d places were tried", places)
	}
}

// insert adds the field to the n-th object below v.
func insert(v any, path string, n *int) (string, bool) {
	switch v := v.(type) {
	case Object:
		if *n == 0 {
			v["unheard"] = "x"
			return path, true
		}
		*n--
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if p, ok := insert(v[name], path+"."+name, n); ok {
				return p, true
			}
		}
	case []any:
		for i, item := range v {
			if p, ok := insert(item, fmt.Sprintf("%s[%d]", path, i), n); ok {
				return p, true
			}
		}
	}
	return "", false
}

var annotation = regexp.MustCompile(`\.metadata`)

// narrower checks that the rule at path, of which a criterion was lost, does not
// let through more.
func narrower(t *testing.T, path string, before, after Object) {
	t.Helper()
	if annotation.MatchString(path) {
		return
	}
	count := func(o Object, action string) int {
		return strings.Count(asJSON(t, o["spec"]), `"action":"`+action+`"`)
	}
	for _, action := range []string{"Allow", "Pass", "Log"} {
		if count(after, action) < count(before, action) {
			return
		}
	}
	if count(after, "Deny") < count(before, "Deny") {
		t.Errorf("%s: a rule that denies is gone", path)
	}
	if !strings.Contains(asJSON(t, after), `{"action":"Deny"`) {
		t.Errorf("%s: %s", path, asJSON(t, after))
	}
}

func TestConversions(t *testing.T) {
	for name, c := range map[string]struct{ in, spec, losses string }{
		"a rule that allows and is left out goes on to isolate": {
			`{"kind":"NetworkPolicy","spec":{"ingress":[{"action":"Allow","http":{"methods":["GET"]}}],"egress":[{"action":"Allow"}]}}`,
			`{"egress":[{"action":"Allow"}],"types":["Ingress","Egress"]}`, "spec.ingress[0]; spec.ingress[0].http.methods",
		},
		"a rule that passes denies instead": {
			`{"kind":"NetworkPolicy","spec":{"ingress":[{"action":"Pass","source":{"selector":"pcns.team == 'a'"}}]}}`,
			`{"ingress":[{"action":"Deny"}]}`, "spec.ingress[0].source.selector; spec.ingress[0]",
		},
		"values of selectors are nobody's labels": {
			`{"kind":"NetworkPolicy","spec":{"selector":"a == \"projectcalico.org/x\""}}`,
			`{"selector":"a == \"projectcalico.org/x\""}`, "",
		},
		"a list of nothing is no criterion": {
			`{"kind":"NetworkPolicy","spec":{"ingress":[{"action":"Allow","source":{"nets":[]}}]}}`,
			`{"ingress":[{"action":"Allow"}]}`, "spec.ingress[0].source.nets",
		},
		"a policy that would select others is not converted": {
			`{"kind":"GlobalNetworkPolicy","spec":{"selector":"projectcalico.org/orchestrator == 'k8s'"}}`, `null`, "spec.selector; ",
		},
		"a plain address of a peer":      {`{"kind":"BGPPeer","spec":{"peerIP":"192.168.1.1","asNumber":65001}}`, `{"address":"192.168.1.1","advertise":["Blocks","Services"],"asNumber":65001}`, ""},
		"an IPv6 address with brackets":  {`{"kind":"BGPPeer","spec":{"peerIP":"[FD00::1]:1179","asNumber":"64512"}}`, `{"address":"fd00::1","advertise":["Blocks","Services"],"asNumber":64512,"port":1179}`, ""},
		"an AS number that is none":      {`{"kind":"BGPPeer","spec":{"peerIP":"192.168.1.1","asNumber":"1.70000"}}`, `{"address":"192.168.1.1","advertise":["Blocks","Services"]}`, "spec.asNumber"},
		"a keepalive time that is short": {`{"kind":"BGPPeer","spec":{"peerIP":"192.168.1.1","keepaliveTime":"10s"}}`, `{"address":"192.168.1.1","advertise":["Blocks","Services"],"keepaliveTime":"10s"}`, ""},
		"a keepalive time that is none":  {`{"kind":"BGPPeer","spec":{"peerIP":"192.168.1.1","keepaliveTime":"soon"}}`, `{"address":"192.168.1.1","advertise":["Blocks","Services"]}`, "spec.keepaliveTime"},
		"a pool given out by hand":       {`{"kind":"IPPool","spec":{"cidr":"10.0.0.1/16","assignmentMode":"Manual"}}`, `{"assignment":"Manual","cidr":"10.0.0.0/16"}`, ""},
		"a pool of some namespaces in tunnels": {
			`{"kind":"IPPool","spec":{"cidr":"10.0.0.0/16","namespaceSelector":"projectcalico.org/name == 'a'","ipipMode":"CrossSubnet","vxlanMode":"Never","disableBGPExport":true,"allowedUses":["Workload","Tunnel"]}}`,
			`{"allowedUses":["Pods","Tunnel"],"announce":"Disabled","cidr":"10.0.0.0/16","encapsulation":"IPIPCrossSubnet","namespaceSelector":"kubernetes.io/metadata.name == 'a'"}`, "spec.namespaceSelector",
		},
		"a pool of load balancers":               {`{"kind":"IPPool","spec":{"cidr":"192.0.2.0/24","vxlanMode":"Always","allowedUses":["LoadBalancer"]}}`, `{"allowedUses":["LoadBalancer"],"cidr":"192.0.2.0/24","encapsulation":"VXLAN"}`, ""},
		"a pool whose namespaces cannot be told": {`{"kind":"IPPool","spec":{"cidr":"10.0.0.0/16","namespaceSelector":"pcns.team == 'a'"}}`, `{"cidr":"10.0.0.0/16","disabled":true}`, "spec.namespaceSelector"},
		"services, one kind without aggregates": {
			`{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"serviceClusterIPs":[{"cidr":"10.96.0.1/12"}],"serviceLoadBalancerIPs":[{"cidr":"192.0.2.0/24"}],"serviceLoadBalancerAggregation":"Disabled"}}`,
			`{"serviceClusterIPs":[{"cidr":"10.96.0.0/12"}],"serviceLoadBalancerIPs":[{"aggregation":"Disabled","cidr":"192.0.2.0/24"}]}`, "",
		},
		"a password of the mesh": {
			`{"kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"nodeMeshPassword":{"secretKeyRef":{"name":"s","key":"k"}}}}`,
			`{"meshPassword":{"key":"k","name":"s"}}`, "spec.nodeMeshPassword",
		},
		"a peer with all that it may have": {
			`{"kind":"BGPPeer","spec":{"peerIP":"192.168.1.1","asNumber":1,"localASNumber":"1.2","password":{"secretKeyRef":{"name":"s","key":"k"}},"sourceAddress":"None","nextHopMode":"Self","numAllowedLocalASNumbers":2,"maxRestartTime":"1m","ttlSecurity":3,"reachableBy":"192.168.2.1","filters":["a"]}}`,
			`{"address":"192.168.1.1","advertise":["Blocks","Services"],"allowOwnAS":2,"asNumber":1,"filters":["a"],"gracefulRestart":{"restartTime":"1m"},"localASNumber":65538,"nextHop":"Self","password":{"key":"k","name":"s"},"reachableBy":"192.168.2.1","sourceAddress":"None","ttlSecurity":3}`, "spec.password",
		},
		"nodes that are the peer": {
			`{"kind":"BGPPeer","spec":{"nodeSelector":"has(a)","peerSelector":"has(b)","asNumber":64512,"reversePeering":"Manual","keepOriginalNextHop":true}}`,
			`{"advertise":["Blocks","Services"],"nextHop":"Keep","nodeSelector":"has(a)","peerSelector":"has(b)"}`, "spec.asNumber; spec.reversePeering",
		},
		"a peer that is a pod": {`{"kind":"BGPPeer","spec":{"localWorkloadSelector":"has(a)"}}`, `null`, "; spec.localWorkloadSelector"},
		"a filter of both families": {
			`{"kind":"BGPFilter","spec":{"exportV6":[{"action":"Reject","cidr":"fd00::1/8","matchOperator":"Equal"}],"exportV4":[{"action":"Accept","cidr":"10.0.0.0/8","matchOperator":"NotIn","prefixLength":{"max":24}},{"action":"Reject"}]}}`,
			`{"export":[{"action":"Accept","family":"IPv4","notPrefixes":[{"cidr":"10.0.0.0/8","maxLength":24,"minLength":8}]},{"action":"Reject","family":"IPv4"},{"action":"Reject","family":"IPv6","prefixes":[{"cidr":"fd00::/8"}]}]}`, "",
		},
		"operations of a filter, of which the last prepends first": {
			`{"kind":"BGPFilter","spec":{"importV4":[{"action":"Accept","operations":[{"prependASPath":{"prefix":[1,2]}},{"addCommunity":{"value":"1:2"}},{"prependASPath":{"prefix":["3"]}},{"setPriority":{"value":100}}]}]}}`,
			`{"import":[{"action":"Accept","family":"IPv4","set":{"addCommunities":["1:2"],"prependASPath":[3,1,2]}}]}`, "spec.importV4[0].operations[3]",
		},
		"a rule that accepts by what is not asked here": {`{"kind":"BGPFilter","spec":{"importV4":[{"action":"Accept","priority":512},{"action":"Reject"}]}}`, `{"import":[{"action":"Reject","family":"IPv4"}]}`, "spec.importV4[0]; spec.importV4[0].priority"},
		"a rule that rejects by what is not asked here": {`{"kind":"BGPFilter","spec":{"importV4":[{"action":"Reject","priority":512,"peerType":"eBGP"}]}}`, `{"import":[{"action":"Reject","family":"IPv4","peerType":"EBGP"}]}`, "spec.importV4[0]; spec.importV4[0].priority"},
		"another BGPConfiguration":                      {`{"kind":"BGPConfiguration","metadata":{"name":"node.a"},"spec":{"logSeverityScreen":"Debug"}}`, `null`, "; spec.logSeverityScreen"},
		"what is no object":                             {`{"kind":"NetworkPolicy","spec":{"ingress":["x"],"selector":7}}`, `{"selector":7,"types":["Ingress"]}`, "spec.ingress"},
	} {
		t.Run(name, func(t *testing.T) {
			out, losses := Convert(parse(t, []byte(c.in)))
			var spec any
			if out != nil {
				spec = out["spec"]
			}
			var fields []string
			for _, l := range losses {
				fields = append(fields, l.Field)
			}
			if got, told := asJSON(t, spec), strings.Join(fields, "; "); got != c.spec || told != c.losses {
				t.Errorf("%s\ntold %q\nwant %s\ntold %q", got, told, c.spec, c.losses)
			}
		})
	}
}

// FuzzConvert converts anything at all.
func FuzzConvert(f *testing.F) {
	for _, o := range examples(f) {
		f.Add(asJSON(f, o))
	}
	f.Fuzz(func(t *testing.T, text string) {
		var o Object
		if sigsjson.UnmarshalCaseSensitivePreserveInts([]byte(text), &o) != nil || o == nil {
			return
		}
		before := asJSON(t, o)
		out, losses := Convert(o)
		if out == nil && len(losses) == 0 {
			t.Error("nothing is converted and nothing is told")
		}
		if after := asJSON(t, o); after != before {
			t.Errorf("the object was changed:\n%s\n%s", before, after)
		}
	})
}
