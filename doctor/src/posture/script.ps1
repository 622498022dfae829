# Reads how safe WinRM is set up, beyond what WS-Management tells. Changes nothing. Lictor posture script, version 1.
# Argument: the port of WinRM. One line of JSON comes out, in ASCII; each item fails by itself.
param([int] $WinRmPort = 5986)
$ErrorActionPreference = 'Stop'
$items = @{}

function Read-Item([string] $Name, [scriptblock] $Read) {
    try {
        $items[$Name] = @{ value = (& $Read) }
    } catch {
        $failure = $_
        $reason = 'failed'
        if ($failure.Exception -is [System.UnauthorizedAccessException] -or
            $failure.Exception -is [System.Security.SecurityException] -or
            $failure.Exception.HResult -eq -2147024891 -or
            "$($failure.CategoryInfo.Category)" -eq 'PermissionDenied') {
            $reason = 'denied'
        } elseif ("$($failure.CategoryInfo.Category)" -eq 'ObjectNotFound') {
            $reason = 'missing'
        }
        $text = "$($failure.Exception.Message)"
        if ($text.Length -gt 300) { $text = $text.Substring(0, 300) }
        $items[$Name] = @{ reason = $reason; error = $text }
    }
}

# Rules that let others in to HTTP.sys at the port of WinRM, as they are in effect: local ones and those of policies.
Read-Item 'firewall' {
    $profiles = @(Get-NetFirewallProfile -PolicyStore ActiveStore | ForEach-Object {
        @{ name = "$($_.Name)"; enabled = "$($_.Enabled)"; inbound = "$($_.DefaultInboundAction)" }
    })
    $opened = @{}
    foreach ($filter in @(Get-NetFirewallPortFilter -PolicyStore ActiveStore)) {
        if (@('TCP', '6', 'Any') -notcontains "$($filter.Protocol)") { continue }
        foreach ($port in @($filter.LocalPort)) {
            $range = "$port".Split('-')
            $within = $range.Count -eq 2 -and $range[0] -match '^\d+$' -and $range[1] -match '^\d+$' -and
                [int] $range[0] -le $WinRmPort -and [int] $range[1] -ge $WinRmPort
            if ("$port" -eq 'Any' -or "$port" -eq "$WinRmPort" -or $within) { $opened[$filter.InstanceID] = "$port" }
        }
    }
    $programs = @{}
    foreach ($filter in @(Get-NetFirewallApplicationFilter -PolicyStore ActiveStore)) {
        $programs[$filter.InstanceID] = "$($filter.Program)"
    }
    $remotes = @{}
    foreach ($filter in @(Get-NetFirewallAddressFilter -PolicyStore ActiveStore)) {
        $remotes[$filter.InstanceID] = @($filter.RemoteAddress | ForEach-Object { "$_" })
    }
    $rules = @()
    foreach ($rule in @(Get-NetFirewallRule -PolicyStore ActiveStore)) {
        if ("$($rule.Enabled)" -ne 'True' -or "$($rule.Direction)" -ne 'Inbound' -or "$($rule.Action)" -ne 'Allow') { continue }
        $id = $rule.InstanceID
        if (-not $opened.ContainsKey($id)) { continue }
        if (@('Any', 'System', '') -notcontains "$($programs[$id])") { continue }
        $rules += @{ name = "$($rule.DisplayName)"; profile = "$($rule.Profile)"; port = $opened[$id]; remote = @($remotes[$id]) }
        if ($rules.Count -ge 200) { break }
    }
    @{ profiles = $profiles; rules = $rules }
}

Read-Item 'script_block_logging' {
    $key = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\PowerShell\ScriptBlockLogging'
    $enabled = $null
    if (Test-Path -Path $key) {
        $enabled = (Get-ItemProperty -Path $key).EnableScriptBlockLogging
    }
    @{ enabled = $enabled }
}

foreach ($log in @('Security', 'Microsoft-Windows-WinRM/Operational', 'Microsoft-Windows-PowerShell/Operational')) {
    Read-Item "log:$log" {
        $found = Get-WinEvent -ListLog $log
        @{ enabled = $found.IsEnabled; bytes = $found.MaximumSizeInBytes; mode = "$($found.LogMode)" }
    }
}

Read-Item 'session_configurations' {
    $configurations = @(Get-PSSessionConfiguration | Select-Object -First 100 | ForEach-Object {
        @{ name = "$($_.Name)"; enabled = "$($_.Enabled)"; sddl = "$($_.SecurityDescriptorSddl)" }
    })
    @{ configurations = $configurations }
}

$json = ConvertTo-Json -InputObject @{ lictor_posture = 1; items = $items } -Depth 10 -Compress
# ASCII passes through every code page.
$json = [regex]::Replace($json, '[^\x20-\x7e]', { param($match) '\u{0:x4}' -f [int] [char] $match.Value })
[Console]::Out.WriteLine($json)
[Console]::Out.Flush()
