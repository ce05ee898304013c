package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents reads a file of YAML by a parser that is not ours.
func documents(t *testing.T, path string) []json.RawMessage {
	t.Helper()
	const script = `import sys, json, yaml
class Strict(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        keys = [k.value for k, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}"
        return super().construct_mapping(node, deep)
print(json.dumps(list(yaml.load_all(open(sys.argv[1]), Strict))))`
	out, err := output(exec.Command("/usr/bin/python3", "-c", script, path))
	if err != nil {
		t.Fatalf("%s: %v\n%s", path, err, out)
	}
	var all []json.RawMessage
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// strictly reads one document; a name that the structure does not have is an error.
func strictly(t *testing.T, doc json.RawMessage, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(doc)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Errorf("%v in %s", err, doc)
	}
}

// TestCompose: examples/compose.yaml holds together: what it mounts is there, Prometheus scrapes the port
// that meta1 serves, nothing but port 25 is open to others. docker-compose reads it, where it is installed.
func TestCompose(t *testing.T) {
	t.Parallel()
	var c struct {
		Services map[string]struct {
			Image, Hostname, Restart string
			StopGracePeriod          string   `json:"stop_grace_period"`
			ReadOnly                 bool     `json:"read_only"`
			CapDrop                  []string `json:"cap_drop"`
			SecurityOpt              []string `json:"security_opt"`
			Ports, Volumes           []string
			DependsOn                []string `json:"depends_on"`
			Environment              map[string]string
			Deploy                   any
		}
		Volumes map[string]any
	}
	strictly(t, documents(t, "../examples/compose.yaml")[0], &c)
	for name, s := range c.Services {
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") && p != "25:25" {
				t.Errorf("%s opens %s to everybody", name, p)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			_, named := c.Volumes[from]
			if _, err := os.Stat(filepath.Join("../examples", from)); err != nil && !named {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, d := range s.DependsOn {
			if _, ok := c.Services[d]; !ok {
				t.Errorf("%s depends on %s", name, d)
			}
		}
		if !regexp.MustCompile(`^[a-z0-9/.]+:[a-z0-9.]+$`).MatchString(s.Image) || s.Restart == "" {
			t.Errorf("%s: image %q, restart %q", name, s.Image, s.Restart)
		}
	}
	if m := c.Services["meta1"]; len(m.Volumes) == 0 || m.Volumes[0] != "spool:/var/spool/meta1" || m.StopGracePeriod == "" || !m.ReadOnly {
		t.Errorf("%+v", m)
	}
	var p struct {
		Global        map[string]string
		RuleFiles     []string `json:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string                       `json:"job_name"`
			StaticConfigs []struct{ Targets []string } `json:"static_configs"`
		} `json:"scrape_configs"`
	}
	strictly(t, documents(t, "../examples/compose/prometheus.yml")[0], &p)
	if got := p.ScrapeConfigs[0].StaticConfigs[0].Targets[0]; got != "meta1:9025" || !strings.Contains(readFile(t, "../container/meta1.conf"), "port = 9025;") {
		t.Errorf("it scrapes %s", got)
	}
	for _, name := range []string{"datasource", "dashboards"} {
		documents(t, "../examples/compose/grafana/"+name+".yml")
	}
	if _, err := exec.LookPath("docker-compose"); err == nil {
		cmd := exec.Command("docker-compose", "-f", "../examples/compose.yaml", "config", "-q")
		cmd.Env = append(os.Environ(), "GRAFANA_PASSWORD=x")
		if out, err := output(cmd); err != nil {
			t.Errorf("docker-compose config: %v\n%s", err, out)
		}
	}
}

// labels are those by which objects find each other.
type labels map[string]string

// object is any object of examples/kubernetes; the fields are those of its API that we use.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string
	Metadata   struct {
		Name   string
		Labels labels
	}
	Data map[string]string
	Spec json.RawMessage
}

type selector struct {
	MatchLabels labels `json:"matchLabels"`
}

type service struct {
	Type                     string
	ClusterIP                string `json:"clusterIP"`
	PublishNotReadyAddresses bool   `json:"publishNotReadyAddresses"`
	ExternalTrafficPolicy    string `json:"externalTrafficPolicy"`
	Selector                 labels
	Ports                    []struct {
		Name       string
		Port       int
		TargetPort string `json:"targetPort"`
	}
}

type budget struct {
	MaxUnavailable int `json:"maxUnavailable"`
	Selector       selector
}

type httpProbe struct {
	HTTPGet struct{ Path, Port string } `json:"httpGet"`

	PeriodSeconds    int `json:"periodSeconds"`
	TimeoutSeconds   int `json:"timeoutSeconds"`
	FailureThreshold int `json:"failureThreshold"`
}

type pod struct {
	SetHostnameAsFQDN             bool `json:"setHostnameAsFQDN"`
	TerminationGracePeriodSeconds int  `json:"terminationGracePeriodSeconds"`
	AutomountServiceAccountToken  bool `json:"automountServiceAccountToken"`
	SecurityContext               struct {
		RunAsNonRoot          bool `json:"runAsNonRoot"`
		RunAsUser, RunAsGroup int
		FSGroup               int                   `json:"fsGroup"`
		FSGroupChangePolicy   string                `json:"fsGroupChangePolicy"`
		SeccompProfile        struct{ Type string } `json:"seccompProfile"`
		Sysctls               []struct{ Name, Value string }
	} `json:"securityContext"`
	Affinity   any
	Containers []struct {
		Name, Image     string
		ImagePullPolicy string `json:"imagePullPolicy"`
		Ports           []struct {
			Name          string
			ContainerPort int `json:"containerPort"`
		}
		SecurityContext struct {
			AllowPrivilegeEscalation bool `json:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool `json:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []string }
		} `json:"securityContext"`
		Resources      struct{ Requests, Limits map[string]string }
		StartupProbe   httpProbe `json:"startupProbe"`
		LivenessProbe  httpProbe `json:"livenessProbe"`
		ReadinessProbe httpProbe `json:"readinessProbe"`
		Lifecycle      struct {
			PreStop struct{ Exec struct{ Command []string } } `json:"preStop"`
		}
		VolumeMounts []struct {
			Name      string
			MountPath string `json:"mountPath"`
			ReadOnly  bool   `json:"readOnly"`
		} `json:"volumeMounts"`
	}
	Volumes []struct {
		Name      string
		ConfigMap struct{ Name string } `json:"configMap"`
	}
}

type statefulSet struct {
	ServiceName         string `json:"serviceName"`
	Replicas            int
	PodManagementPolicy string `json:"podManagementPolicy"`
	Selector            selector
	Retention           map[string]string `json:"persistentVolumeClaimRetentionPolicy"`
	Template            struct {
		Metadata struct {
			Labels      labels
			Annotations map[string]string
		}
		Spec pod
	}
	VolumeClaimTemplates []struct {
		Metadata struct{ Name string }
		Spec     struct {
			AccessModes []string `json:"accessModes"`
			Resources   struct{ Requests map[string]string }
		}
	} `json:"volumeClaimTemplates"`
}

// TestKubernetes: the objects of examples/kubernetes have the fields of their API and no others, refer to each
// other, and to what the image and the program have: paths, ports, the account, flags of the commands.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	kinds := map[string]object{}
	for _, doc := range documents(t, "../examples/kubernetes/meta1.yaml") {
		var o object
		strictly(t, doc, &o)
		kinds[o.APIVersion+" "+o.Kind+" "+o.Metadata.Name] = o
	}
	var set statefulSet
	var b budget
	var headless, clients service
	for name, into := range map[string]any{
		"apps/v1 StatefulSet meta1": &set, "policy/v1 PodDisruptionBudget meta1": &b, "v1 Service meta1": &headless, "v1 Service meta1-smtp": &clients,
	} {
		if kinds[name].Spec == nil {
			t.Fatalf("there is no %s", name)
		}
		strictly(t, kinds[name].Spec, into)
	}
	const app = "app.kubernetes.io/name"
	spec := set.Template.Spec
	c := spec.Containers[0]
	for what, ok := range map[string]bool{
		"selectors": set.Selector.MatchLabels[app] == "meta1" && set.Template.Metadata.Labels[app] == "meta1" && b.Selector.MatchLabels[app] == "meta1" &&
			headless.Selector[app] == "meta1" && clients.Selector[app] == "meta1",
		"its service":         set.ServiceName == "meta1" && headless.ClusterIP == "None" && clients.ExternalTrafficPolicy == "Local",
		"budget":              b.MaxUnavailable == 1 && set.Replicas > 1,
		"the account":         spec.SecurityContext.RunAsUser == 10025 && spec.SecurityContext.FSGroup == 10025 && strings.Contains(readFile(t, "../container/passwd"), ":10025:10025:"),
		"the volume":          c.VolumeMounts[0].Name == set.VolumeClaimTemplates[0].Metadata.Name && c.VolumeMounts[0].MountPath == "/var/spool/meta1" && set.Retention["whenScaled"] == "Retain",
		"the configuration":   c.VolumeMounts[1].MountPath == "/etc/meta1" && spec.Volumes[0].Name == c.VolumeMounts[1].Name && spec.Volumes[0].ConfigMap.Name == "meta1",
		"names of its own":    spec.SetHostnameAsFQDN,
		"rights":              !c.SecurityContext.AllowPrivilegeEscalation && c.SecurityContext.ReadOnlyRootFilesystem && c.SecurityContext.Capabilities.Drop[0] == "ALL",
		"probes":              c.StartupProbe.HTTPGet.Path == "/healthz" && c.LivenessProbe.HTTPGet.Path == "/healthz" && c.ReadinessProbe.HTTPGet.Path == "/readyz",
		"time for the drain":  spec.TerminationGracePeriodSeconds >= 150,
		"port 25 for account": spec.SecurityContext.Sysctls[0].Name == "net.ipv4.ip_unprivileged_port_start",
	} {
		if !ok {
			t.Errorf("%s: not as it should be", what)
		}
	}
	dir := testDir(t)
	for name, text := range kinds["v1 ConfigMap meta1"].Data {
		if name == "meta1.conf" {
			text = account() + text
		}
		writeFile(t, filepath.Join(dir, name), text)
	}
	if out, err := commandIn(t, dir, nil, "config", "check", "-f", dir+"/meta1.conf"); err != nil {
		t.Errorf("its configuration: %v\n%s", err, out)
	}
	// The command of the hook: all but the end, which needs a meta1.
	hook := c.Lifecycle.PreStop.Exec.Command
	out, err := commandIn(t, dir, nil, append(hook[1:], "--socket", dir+"/none")...)
	if hook[0] != "/meta1" || err == nil || !strings.Contains(out, "meta1 does not run") {
		t.Errorf("%q: %v %s", hook, err, out)
	}
}
