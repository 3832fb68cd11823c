package bench

// Names of what is measured. Hot: a sandbox waits ready-made; drained: none
// does, and each is restored.
const (
	CreateHot          = "create_hot"           // the create call
	FirstOutputHot     = "first_output_hot"     // from the create call to the output of print(1)
	CreateDrained      = "create_drained"       // the same
	FirstOutputDrained = "first_output_drained" // the same
	ExecTrue           = "exec_true"            // one command that does nothing
	ExecEncrypted      = "exec_true_encrypted"  // the same with encryption from end to end, beside the same without
	SignAndCheck       = "sign_and_check"       // the client's signature of a request, and its check
	RunCodePython      = "run_code_python"      // print(1) as the SDK runs code, in a process of its own
	Pause              = "pause"                // the pause call
	Resume             = "resume"               // the resume call
	Fork               = "fork"                 // the fork call, for one copy
	Upload             = "upload_64mib"         // 64 MiB into a session
	Download           = "download_64mib"       // 64 MiB out of a session
	IdleMemory         = "idle_private_mib"     // memory of its own of an idle session
	IdlePreloaded      = "idle_private_preloaded_mib"
)

// Names returns everything that can be measured, in the order of the report.
func Names() []string {
	return []string{
		CreateHot, FirstOutputHot, CreateDrained, FirstOutputDrained, ExecTrue, ExecEncrypted, SignAndCheck, RunCodePython,
		Pause, Resume, Fork, Upload, Download, IdleMemory, IdlePreloaded,
	}
}

// Names of the references.
const (
	refStockRun        = "stock_runsc_run"
	refStockRestore    = "stock_runsc_restore"
	refStockCheckpoint = "stock_runsc_checkpoint"
	refStockBoth       = "stock_runsc_checkpoint_restore"
	refNativeTrue      = "python_subprocess_true"
	refNativePython    = "python_subprocess_python"
	refExecPlain       = "exec_true_plain"
	refLocalHTTP       = "local_http"
)
